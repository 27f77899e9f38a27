package kfp

import (
	"fmt"
	"slices"
	"strings"
)

// shownNames is how many names a hint lists before it says how many more.
const shownNames = 8

// DidYouMean is a hint for a name that is not known: the nearest of the known
// ones, or what there is. noun is the plural of what is known ("tasks").
func DidYouMean(name string, known []string, noun string) string {
	return didYouMean(name, known, noun)
}

// didYouMean is a hint that names the nearest of known, or lists what there is.
// noun is the plural of what is known ("fields", "tasks").
func didYouMean(name string, known []string, noun string) string {
	known = slices.Sorted(slices.Values(known))
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return "there are no " + noun
	}
	shown := known
	more := ""
	if len(shown) > shownNames {
		shown, more = shown[:shownNames], fmt.Sprintf(" and %d more", len(known)-shownNames)
	}
	return noun + ": " + clip(strings.Join(shown, ", "), 400) + more
}

// nearest is the known name that name is most likely a misspelling of, or "".
func nearest(name string, known []string) string {
	best, bestDistance := "", len(name)/3+1
	if len(name) > 100 {
		return ""
	}
	for _, candidate := range known {
		if len(candidate) > 100 {
			continue
		}
		if d := distance(fold(name), fold(candidate)); d < bestDistance || (d == bestDistance && best == "" && d <= 2) {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// fold makes spellings alike that differ in case and separators only.
func fold(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}

// distance is the number of edits (insert, delete, replace, swap of neighbours)
// between two words.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
