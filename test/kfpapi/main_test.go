package kfpapi_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/skiff-ml/skiff/engine/pod"
	"github.com/skiff-ml/skiff/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func podKinds() []store.Kind { return pod.Kinds() }
