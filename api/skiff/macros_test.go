package skiff

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestMacros(t *testing.T) {
	m := Macros{Run: "id-1", Index: 7, Scheduled: time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC), Now: time.Date(2026, 3, 1, 2, 0, 1, 0, time.UTC)}
	for _, c := range []struct{ name, raw, typed, text string }{
		{name: "no placeholder", raw: `"plain"`, typed: `"plain"`},
		{name: "time", raw: `"a [[ScheduledTime]] b"`, text: "a 20260301020000 b"},
		{name: "now", raw: `"[[CurrentTime]]"`, text: "20260301020001"},
		{name: "layout", raw: `"[[ScheduledTime.2006-01-02]]/[[CurrentTime.15-04-05]]"`, text: "2026-03-01/02-00-01"},
		{name: "layout with dots", raw: `"[[ScheduledTime.02.01.2006]]"`, text: "01.03.2026"},
		{name: "run and index", raw: `"[[RunUUID]]-[[Index]]"`, text: "id-1-7"},
		{name: "unknown", raw: `"[[Nothing]] [[Index.2]] [[index]]"`, typed: `"[[Nothing]] [[Index.2]] [[index]]"`},
		{name: "not closed", raw: `"[[Index]"`, typed: `"[[Index]"`},
		{name: "escaped", raw: `"\u005b\u005bIndex]]"`, text: "7"},
		{name: "numbers keep their digits", raw: `[[12345678901234567890, 1.10]]`, typed: `[[12345678901234567890, 1.10]]`},
		{name: "nested", raw: `{"a":["[[Index]]",1.10,{"b":"[[RunUUID]]"}],"[[Index]]":null}`, typed: `{"[[Index]]":null,"a":["7",1.10,{"b":"id-1"}]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			typed, texts, err := m.Expand(map[string]json.RawMessage{"p": json.RawMessage(c.raw)})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.typed, string(typed["p"])); diff != "" {
				t.Errorf("typed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.text, texts["p"]); diff != "" {
				t.Errorf("text (-want +got):\n%s", diff)
			}
			var text string
			if json.Unmarshal([]byte(c.raw), &text) == nil && HasMacro(text) != (c.text != "") {
				t.Errorf("HasMacro(%q) is %t", text, HasMacro(text))
			}
		})
	}
	if _, _, err := m.Expand(map[string]json.RawMessage{"p": json.RawMessage(`"[[`)}); err == nil || !strings.Contains(err.Error(), "parameter p") {
		t.Errorf("what is no JSON: %v", err)
	}
}

func TestNote(t *testing.T) {
	var s RecurringRunStatus
	when := time.Date(2026, 3, 1, 2, 0, 0, 0, time.UTC)
	for i := range maxEvents + 5 {
		for range 3 {
			s.Note(ReasonRefused, itoa(i), when.Add(time.Duration(i)*time.Hour))
		}
	}
	if len(s.Events) != maxEvents || s.Events[0].Message != "5" || s.Events[maxEvents-1].Message != itoa(maxEvents+4) {
		t.Errorf("events: %+v", s.Events)
	}
	if s.Events[0].Count != 3 || !s.Events[0].First.Equal(when.Add(5*time.Hour)) {
		t.Errorf("the first of them: %+v", s.Events[0])
	}
}
