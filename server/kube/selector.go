package kube

import (
	"slices"
	"strings"
)

// Selector is a parsed label selector: all of its requirements hold.
type Selector []Requirement

// Requirement is one condition on one label.
type Requirement struct {
	Key string
	// Op is "=", "!=", "in", "notin", "exists" or "!".
	Op     string
	Values []string
}

// ParseSelector reads the published grammar of label selectors:
// "a=b,c!=d,e in (f,g),h notin (i),j,!k".
func ParseSelector(text string) (Selector, error) {
	var selector Selector
	for _, part := range splitOutside(text) {
		part = strings.TrimSpace(part)
		if part == "" {
			if strings.TrimSpace(text) == "" {
				return nil, nil
			}
			return nil, BadRequest("label selector %q: there is an empty requirement", text)
		}
		requirement, err := parseRequirement(part)
		if err != nil {
			return nil, err
		}
		selector = append(selector, requirement)
	}
	return selector, nil
}

func parseRequirement(part string) (Requirement, error) {
	if key, ok := strings.CutPrefix(part, "!"); ok && !strings.Contains(part, "=") {
		return checkKey(part, Requirement{Key: strings.TrimSpace(key), Op: "!"})
	}
	for _, op := range []string{"!=", "==", "="} {
		if key, value, ok := strings.Cut(part, op); ok {
			name := strings.Replace(op, "==", "=", 1)
			return checkKey(part, Requirement{
				Key: strings.TrimSpace(key), Op: name, Values: []string{strings.TrimSpace(value)},
			})
		}
	}
	fields := strings.Fields(strings.Replace(part, "(", " (", 1))
	if len(fields) == 1 {
		return checkKey(part, Requirement{Key: part, Op: "exists"})
	}
	list := strings.Join(fields[min(2, len(fields)):], "")
	inner, opened := strings.CutPrefix(list, "(")
	inner, closed := strings.CutSuffix(inner, ")")
	if (fields[1] != "in" && fields[1] != "notin") || !opened || !closed {
		return Requirement{}, BadRequest("label selector %q: want key=value, key!=value, key in (a,b), key notin (a,b), key or !key", part)
	}
	return checkKey(part, Requirement{Key: fields[0], Op: fields[1], Values: strings.Split(inner, ",")})
}

func checkKey(part string, r Requirement) (Requirement, error) {
	if r.Key == "" || strings.ContainsAny(r.Key, " \t()!=,") {
		return r, BadRequest("label selector %q: %q is not a label's name", part, r.Key)
	}
	return r, nil
}

// splitOutside splits at commas that are not in parentheses.
func splitOutside(text string) []string {
	var parts []string
	depth, start := 0, 0
	for i, r := range text {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				parts = append(parts, text[start:i])
				start = i + 1
			}
		}
	}
	return append(parts, text[start:])
}

// Matches reports whether labels meet every requirement.
func (s Selector) Matches(labels map[string]string) bool {
	for _, r := range s {
		value, present := labels[r.Key]
		var ok bool
		switch r.Op {
		case "=", "in":
			ok = present && slices.Contains(r.Values, value)
		case "!=", "notin":
			ok = !present || !slices.Contains(r.Values, value)
		case "exists":
			ok = present
		case "!":
			ok = !present
		}
		if !ok {
			return false
		}
	}
	return true
}

// fieldRequirement is one part of a field selector.
type fieldRequirement struct {
	field, value string
	negate       bool
}

func parseFields(text string) ([]fieldRequirement, error) {
	var all []fieldRequirement
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		for _, op := range []string{"!=", "==", "="} {
			if field, value, ok := strings.Cut(part, op); ok {
				all = append(all, fieldRequirement{field: field, value: value, negate: op == "!="})
				part = ""
				break
			}
		}
		if part != "" {
			return nil, BadRequest("field selector %q: want field=value or field!=value", part)
		}
	}
	return all, nil
}
