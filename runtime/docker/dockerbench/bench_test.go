//go:build docker

package dockerbench_test

import (
	"slices"
	"testing"

	"github.com/skiff-ml/skiff/runtime/docker/dockerbench"
	"github.com/skiff-ml/skiff/runtime/launch/launchtest"
)

// TestPairs shows the figures; timings never fail a test.
func TestPairs(t *testing.T) {
	for _, network := range []string{"", "none"} {
		b, err := dockerbench.New(t.Context(), dockerbench.Options{
			Image: "skiffdev/busybox:1", LauncherPath: launchtest.Build(t), Network: network,
		})
		if err != nil {
			t.Fatal(err)
		}
		pairs, err := b.Pairs(t.Context(), 7)
		if err == nil {
			slices.SortFunc(pairs, func(a, b dockerbench.Pair) int {
				if a.Ratio() < b.Ratio() {
					return -1
				}
				return 1
			})
			t.Logf("network %q: ratio %.2f (%.2f to %.2f), median pair %v", network,
				pairs[len(pairs)/2].Ratio(), pairs[0].Ratio(), pairs[len(pairs)-1].Ratio(), pairs[len(pairs)/2])
			for _, p := range pairs {
				if p.Bare <= 0 || p.Step <= 0 {
					t.Errorf("a measurement is missing: %+v", p)
				}
			}
		}
		if err2 := b.Close(); err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
	}
}
