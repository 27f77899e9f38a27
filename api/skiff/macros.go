package skiff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Macros are what the placeholders in a recurring run's parameters stand for in
// one of its runs, as published: [[RunUUID]], [[Index]], [[ScheduledTime]] and
// [[CurrentTime]], the last two also with a layout of Go's package time, as in
// [[ScheduledTime.2006-01-02]]. Times are UTC. Any other text in double brackets
// stays as it is.
type Macros struct {
	// Run is the run's name.
	Run string
	// Index counts the recurring run's runs, from 1.
	Index int64
	// Scheduled is the time on the schedule, Now the time at which the run is made.
	Scheduled, Now time.Time
}

// macroLayout is how times are written that have no layout of their own.
const macroLayout = "20060102150405"

var macroPattern = regexp.MustCompile(`\[\[.*?\]\]`)

// HasMacro reports whether a text has a placeholder.
func HasMacro(text string) bool {
	return (Macros{Run: "x"}).replace(text) != text
}

// replace puts values in the place of placeholders.
func (m Macros) replace(text string) string {
	return macroPattern.ReplaceAllStringFunc(text, func(match string) string {
		name, layout, formatted := strings.Cut(match[2:len(match)-2], ".")
		if !formatted {
			layout = macroLayout
		}
		switch {
		case name == "ScheduledTime":
			return m.Scheduled.UTC().Format(layout)
		case name == "CurrentTime":
			return m.Now.UTC().Format(layout)
		case name == "RunUUID" && !formatted:
			return m.Run
		case name == "Index" && !formatted:
			return strconv.FormatInt(m.Index, 10)
		}
		return match
	})
}

// Expand puts values in the place of the placeholders in every text in the
// parameters, nested ones too. A parameter that is itself a text with a
// placeholder is returned among texts, to be read by the type of its input: so
// "[[Index]]" gives an integer where one is wanted. All others are in typed, which
// shares with parameters what has no placeholder.
func (m Macros) Expand(parameters map[string]json.RawMessage) (typed map[string]json.RawMessage, texts map[string]string, err error) {
	typed = make(map[string]json.RawMessage, len(parameters))
	texts = map[string]string{}
	for name, raw := range parameters {
		typed[name] = raw
		// Brackets may be written as escapes, too.
		if !bytes.Contains(raw, []byte("[[")) && !bytes.Contains(raw, []byte(`\u`)) {
			continue
		}
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber() // a number stays as it was written
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, nil, fmt.Errorf("parameter %s: %w", name, err)
		}
		if text, is := value.(string); is {
			if expanded := m.replace(text); expanded != text {
				delete(typed, name)
				texts[name] = expanded
			}
			continue
		}
		expanded, changed := m.walk(value)
		if !changed {
			continue
		}
		if typed[name], err = json.Marshal(expanded); err != nil {
			return nil, nil, fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return typed, texts, nil
}

// walk replaces in the texts of a JSON value, which it changes in place; keys of
// objects are left as they are.
func (m Macros) walk(value any) (any, bool) {
	changed := false
	switch v := value.(type) {
	case string:
		text := m.replace(v)
		return text, text != v
	case []any:
		for i, item := range v {
			one, different := m.walk(item)
			v[i], changed = one, changed || different
		}
	case map[string]any:
		for key, item := range v {
			one, different := m.walk(item)
			v[key], changed = one, changed || different
		}
	}
	return value, changed
}
