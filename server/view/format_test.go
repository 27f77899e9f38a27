package view_test

import (
	"testing"
	"time"

	"github.com/skiff-ml/skiff/server/view"
)

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0ms", 0: "0ms", 340 * time.Millisecond: "340ms", 8260 * time.Millisecond: "8.2s", 59 * time.Second: "59s",
		760 * time.Second: "12m40s", 3*time.Hour + 12*time.Minute: "3h12m", 124 * time.Hour: "5d4h", 61 * time.Minute: "1h01m",
	} {
		if got := view.Duration(d); got != want {
			t.Errorf("%v: %s, want %s", int64(d), got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 812: "812 B", 1024: "1.00 KiB", 1536: "1.50 KiB", 15 << 20: "15.0 MiB", 1_525_000_000: "1.42 GiB", 512 << 30: "512 GiB",
	} {
		if got := view.Bytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestCPU(t *testing.T) {
	for milli, want := range map[int64]string{0: "0", 250: "0.25", 4000: "4", 1: "0.001"} {
		if got := view.CPU(milli); got != want {
			t.Errorf("%d: %s, want %s", milli, got, want)
		}
	}
}
