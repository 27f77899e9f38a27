package skiff

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// isoAge is an ISO 8601 duration without fractions, ageUnits are its parts.
var (
	isoAge   = regexp.MustCompile(`^P(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9]+)W)?(?:([0-9]+)D)?(?:T(?:([0-9]+)H)?(?:([0-9]+)M)?(?:([0-9]+)S)?)?$`)
	ageUnits = [...]time.Duration{365 * day, 30 * day, 7 * day, day, time.Hour, time.Minute, time.Second}
)

// ParseAge reads how old something may be: days or weeks ("30d", "1.5d", "2w"), a
// duration as Go writes them ("36h", "90m"), or as ISO 8601 does ("P30D"), with
// years of 365 and months of 30 days. It is never negative; what is more than a
// duration can hold is the longest one.
func ParseAge(text string) (time.Duration, error) {
	if strings.HasPrefix(text, "P") {
		return parseISOAge(text)
	}
	for unit, length := range map[string]time.Duration{"d": day, "w": 7 * day} {
		if count, found := strings.CutSuffix(text, unit); found {
			n, err := strconv.ParseFloat(count, 64)
			if err != nil && !errors.Is(err, strconv.ErrRange) || math.IsNaN(n) {
				return 0, noAge(text)
			}
			return age(n * float64(length))
		}
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, noAge(text)
	case d < 0:
		return 0, errNegativeAge
	}
	return d, nil
}

func parseISOAge(text string) (time.Duration, error) {
	parts := isoAge.FindStringSubmatch(text)
	if parts == nil || text == "P" || strings.HasSuffix(text, "T") {
		return 0, noAge(text)
	}
	var total float64
	for i, unit := range ageUnits {
		if parts[i+1] == "" {
			continue
		}
		count, err := strconv.ParseFloat(parts[i+1], 64)
		if err != nil {
			return 0, noAge(text)
		}
		total += count * float64(unit)
	}
	return age(total)
}

func noAge(text string) error {
	return fmt.Errorf("%q is no age", text)
}

var errNegativeAge = errors.New("an age is not negative")

// age is a number of nanoseconds as a duration.
func age(nanoseconds float64) (time.Duration, error) {
	switch {
	case nanoseconds < 0:
		return 0, errNegativeAge
	case nanoseconds >= float64(math.MaxInt64):
		return math.MaxInt64, nil
	}
	return time.Duration(nanoseconds), nil
}
