package skiff

import (
	"strings"
	"testing"
	"time"
)

func TestParseRetention(t *testing.T) {
	const gib = 1 << 30
	for text, want := range map[string]Retention{
		"":               {},
		" ":              {},
		"max-age=30d":    {MaxAge: 30 * 24 * time.Hour},
		"max-age=1.5d":   {MaxAge: 36 * time.Hour},
		"max-age=2w":     {MaxAge: 14 * 24 * time.Hour},
		"max-age=90m":    {MaxAge: 90 * time.Minute},
		"max-runs=1000":  {MaxRuns: 1000},
		"max-bytes=1Ki":  {MaxBytes: 1024},
		"max-bytes=5GB":  {MaxBytes: 5e9},
		"max-bytes=1000": {MaxBytes: 1000},
		"max-age=30d,max-runs=1000,max-bytes=200GiB": {MaxAge: 30 * 24 * time.Hour, MaxRuns: 1000, MaxBytes: 200 * gib},
		"max-runs=1, max-age=none, max-runs=none":    {},
	} {
		got, err := ParseRetention(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
		again, err := ParseRetention(got.String())
		if err != nil || again != got {
			t.Errorf("%q is written as %q, which is read as %+v, %v", text, got, again, err)
		}
	}
	for text, part := range map[string]string{
		"max-age=": "max-age", "max-age=30": "30d", "max-age=-1d": "max-age", "max-age=0d": "max-age", "max-age=1e9d": "max-age", "max-age=NaNd": "max-age",
		"max-runs=0": "above 0", "max-runs=many": "max-runs", "max-runs=-1": "max-runs", "max-bytes=0": "200GiB", "max-bytes=big": "max-bytes",
		"max-bytes=-5": "max-bytes", "min-age=1d": "is no bound", "30d": "is no bound",
	} {
		if got, err := ParseRetention(text); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q: %+v, %v; want %q", text, got, err, part)
		}
	}
}

func FuzzParseRetention(f *testing.F) {
	for _, seed := range []string{"max-age=30d,max-runs=1000,max-bytes=200GiB", "max-age=1e300w", "max-bytes=9223372036854775807", "=,=,"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRetention(text)
		if err != nil {
			return
		}
		if r.MaxAge < 0 || r.MaxRuns < 0 || r.MaxBytes < 0 {
			t.Errorf("%q: %+v", text, r)
		}
		if again, err := ParseRetention(r.String()); err != nil || again != r {
			t.Errorf("%q: %+v is written as %q and read as %+v, %v", text, r, r, again, err)
		}
	})
}
