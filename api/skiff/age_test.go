package skiff

import (
	"math"
	"testing"
	"time"
)

func TestParseAge(t *testing.T) {
	for _, test := range []struct {
		text string
		want time.Duration
		bad  bool
	}{
		{"720h", 720 * time.Hour, false}, {"0s", 0, false}, {"1h30m", 90 * time.Minute, false}, {"30d", 30 * day, false}, {"0d", 0, false},
		{"P30D", 30 * day, false}, {"P0D", 0, false}, {"PT2H30M5S", 2*time.Hour + 30*time.Minute + 5*time.Second, false},
		{"P1Y2M1W", (365 + 60 + 7) * day, false}, {"P99999Y", math.MaxInt64, false}, {"4000000000d", math.MaxInt64, false},
		{"", 0, true}, {"P", 0, true}, {"PT", 0, true}, {"P1H", 0, true}, {"P-1D", 0, true}, {"-1h", 0, true}, {"d", 0, true}, {"30", 0, true},
		{"1.5d", 36 * time.Hour, false}, {"2w", 14 * day, false}, {"99999999999d", math.MaxInt64, false}, {"1e999w", math.MaxInt64, false},
		{"NaNd", 0, true}, {"-1d", 0, true}, {"forever", 0, true},
	} {
		got, err := ParseAge(test.text)
		if (err != nil) != test.bad || got != test.want {
			t.Errorf("%q: %s, %v; want %s, error: %v", test.text, got, err, test.want, test.bad)
		}
	}
}

func FuzzParseAge(f *testing.F) {
	for _, seed := range []string{"720h", "30d", "P30D", "PT1S", "P", "-1h", "P9999999999999999999Y", "1e300w", "NaNd"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if age, err := ParseAge(text); err == nil && age < 0 {
			t.Errorf("%q: %d", text, age)
		}
	})
}
