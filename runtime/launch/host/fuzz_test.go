package host

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/skiff-ml/skiff/runtime/launch"
)

func FuzzDecodeExit(f *testing.F) {
	f.Add([]byte(`{"version":1,"commandID":"a","exitCode":0,"reason":"Completed","finishedAt":"2026-01-01T00:00:00Z","outputs":{"a":"AA=="}}`))
	f.Add([]byte(`{"version":1,"exitCode":143,"reason":"Stopped","finishedAt":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := DecodeExit(data)
		if err != nil {
			if !errors.Is(err, ErrRecord) {
				t.Errorf("error %v", err)
			}
			return
		}
		if (r.ExitCode == 0) != (r.Reason == launch.ReasonCompleted) || r.ExitCode == 0 && r.CommandID == "" {
			t.Errorf("success out of %+v", r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeExit(again); err != nil {
			t.Errorf("%s is not read again: %v", again, err)
		}
	})
}
