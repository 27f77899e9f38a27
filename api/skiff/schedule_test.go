package skiff

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/skiff-ml/skiff/api/core"
)

func at(t *testing.T, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

func TestScheduleNext(t *testing.T) {
	for _, c := range []struct {
		name       string
		schedule   Schedule
		start, end string
		after      string
		want       string // empty for none
	}{
		{name: "cron", schedule: Schedule{Cron: "0 0 2 * * *"}, after: "2026-03-01T02:00:00Z", want: "2026-03-02T02:00:00Z"},
		{name: "cron, within a second", schedule: Schedule{Cron: "* * * * * *"}, after: "2026-03-01T02:00:00.9Z", want: "2026-03-01T02:00:01Z"},
		{name: "weekdays", schedule: Schedule{Cron: "0 30 9 ? * MON-FRI"}, after: "2026-03-06T09:30:00Z", want: "2026-03-09T09:30:00Z"},
		{name: "leap day", schedule: Schedule{Cron: "0 0 0 29 2 *"}, after: "2026-03-01T00:00:00Z", want: "2028-02-29T00:00:00Z"},
		{name: "descriptor", schedule: Schedule{Cron: "@daily"}, after: "2026-03-01T00:00:00Z", want: "2026-03-02T00:00:00Z"},
		{name: "every", schedule: Schedule{Cron: "@every 90m"}, after: "2026-03-01T00:00:00Z", want: "2026-03-01T01:30:00Z"},
		{name: "interval", schedule: Schedule{IntervalSeconds: 60}, after: "2026-03-01T00:00:00.7Z", want: "2026-03-01T00:01:00Z"},
		{name: "other zone", schedule: Schedule{Cron: "0 0 2 * * *"}, after: "2026-03-01T03:00:00+02:00", want: "2026-03-01T02:00:00Z"},
		{name: "the end itself", schedule: Schedule{IntervalSeconds: 60}, end: "2026-03-01T00:01:00Z", after: "2026-03-01T00:00:00Z", want: "2026-03-01T00:01:00Z"},
		{name: "after the end", schedule: Schedule{IntervalSeconds: 60}, end: "2026-03-01T00:00:59Z", after: "2026-03-01T00:00:00Z"},
		{name: "no such day", schedule: Schedule{Cron: "0 0 0 30 2 *"}, after: "2026-03-01T00:00:00Z"},
		{name: "nonsense", schedule: Schedule{Cron: "nonsense"}, after: "2026-03-01T00:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.end != "" {
				c.schedule.EndTime = at(t, c.end)
			}
			got := c.schedule.Next(at(t, c.after))
			var want time.Time
			if c.want != "" {
				want = at(t, c.want)
			}
			if !got.Equal(want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestScheduleValidate(t *testing.T) {
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name     string
		schedule Schedule
		want     string // of the message; empty for none
	}{
		{"cron", Schedule{Cron: "0 0 9 ? * 2-6"}, ""},
		{"every", Schedule{Cron: "@every 1h30m"}, ""},
		{"leap day", Schedule{Cron: "0 0 0 29 2 *"}, ""},
		{"interval", Schedule{IntervalSeconds: 1}, ""},
		{"five fields", Schedule{Cron: "0 9 * * *"}, "expected exactly 6 fields"},
		{"no such day", Schedule{Cron: "0 0 0 30 2 *"}, "there is no such day"},
		{"time zone", Schedule{Cron: "CRON_TZ=UTC 0 0 9 * * *"}, "times are UTC"},
		{"parts of seconds", Schedule{Cron: "@every 1500ms"}, "whole seconds"},
		{"no time at all", Schedule{Cron: "@every 0s"}, "at least one"},
		{"backwards", Schedule{Cron: "@every -1h"}, "at least one"},
		{"neither", Schedule{}, "at least one second"},
		{"both", Schedule{Cron: "@daily", IntervalSeconds: 1}, "want one of them"},
		{"too long", Schedule{IntervalSeconds: maxInterval + 1}, "a hundred years"},
		{"ends before it starts", Schedule{IntervalSeconds: 1, StartTime: day, EndTime: day}, "is not after the start"},
	} {
		t.Run(c.name, func(t *testing.T) {
			problems := c.schedule.Validate()
			if c.want == "" && len(problems) > 0 || c.want != "" && !strings.Contains(problems.Error(), c.want) {
				t.Errorf("got %q, want %q", problems.Error(), c.want)
			}
		})
	}
}

// TestRecurringRunFrom says where a schedule begins to count.
func TestRecurringRunFrom(t *testing.T) {
	const created, start, settled = "2026-03-01T10:00:00.5Z", "2026-02-01T00:00:00Z", "2026-03-01T12:00:00Z"
	for _, c := range []struct{ name, start, settled, want string }{
		{"the creation", "", "", "2026-03-01T11:00:00Z"},
		{"a start in the past, to be made up for", start, "", "2026-02-01T01:00:00Z"},
		{"a start to come", "2026-03-02T00:00:00Z", "", "2026-03-02T01:00:00Z"},
		{"what is settled", "", settled, "2026-03-01T13:00:00Z"},
		{"what is settled, after the start", start, settled, "2026-03-01T13:00:00Z"},
		{"a start that was set later", "2026-03-02T00:00:00Z", settled, "2026-03-02T01:00:00Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &RecurringRun{ObjectMeta: core.ObjectMeta{CreationTimestamp: at(t, created)}, Spec: RecurringRunSpec{Schedule: Schedule{IntervalSeconds: 3600}}}
			if c.start != "" {
				r.Spec.Schedule.StartTime = at(t, c.start)
			}
			if c.settled != "" {
				r.Status.SettledUntil = at(t, c.settled)
			}
			if got, want := r.Next(), at(t, c.want); !got.Equal(want) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// TestScheduleNewest holds the search for the newest time that has come against
// going through all of them.
func TestScheduleNewest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchedule(t)
		from := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(t, "from"), 0)
		now := from.Add(time.Duration(rapid.Int64Range(0, 40*24*3600).Draw(t, "seconds")) * time.Second)
		if rapid.Bool().Draw(t, "bounded") {
			s.EndTime = from.Add(time.Duration(rapid.Int64Range(1, 40*24*3600).Draw(t, "end")) * time.Second)
		}
		r := &RecurringRun{Spec: RecurringRunSpec{Schedule: s}, Status: RecurringRunStatus{SettledUntil: from}}
		var want time.Time
		for next, n := s.Next(from), 0; !next.IsZero() && !next.After(now); next = s.Next(next) {
			want = next
			if n++; n > 50_000 {
				t.Skip("too many to go through")
			}
		}
		if got := r.Overdue(now); !got.Equal(want) {
			t.Fatalf("the newest time of %+v in %s to %s is %s, want %s", s, from.UTC(), now.UTC(), got, want)
		}
		r.Spec.NoCatchup = true
		if got := r.Due(now); !got.Equal(want) {
			t.Fatalf("without catching up, %s is due, want %s", got, want)
		}
		r.Spec.NoCatchup = false
		if want = s.Next(from); want.After(now) {
			want = time.Time{}
		}
		if got := r.Due(now); !got.Equal(want) {
			t.Fatalf("catching up, %s is due, want %s", got, want)
		}
	})
}

func drawSchedule(t *rapid.T) Schedule {
	field := func(name string, low, high int) string {
		a, b := rapid.IntRange(low, high).Draw(t, name), rapid.IntRange(low, high).Draw(t, name)
		step := rapid.IntRange(1, 30).Draw(t, name+" step")
		return rapid.SampledFrom([]string{"*", itoa(a), itoa(min(a, b)) + "-" + itoa(max(a, b)), "*/" + itoa(step), itoa(a) + "," + itoa(b)}).Draw(t, name+" form")
	}
	switch rapid.IntRange(0, 3).Draw(t, "form") {
	case 0:
		return Schedule{IntervalSeconds: rapid.Int64Range(1, 100_000).Draw(t, "interval")}
	case 1:
		return Schedule{Cron: "@every " + itoa(rapid.IntRange(1, 100_000).Draw(t, "every")) + "s"}
	case 2:
		return Schedule{Cron: "0 " + field("minute", 0, 59) + " " + field("hour", 0, 23) + " " + field("day", 1, 28) + " " + field("month", 1, 12) + " *"}
	default:
		return Schedule{Cron: field("second", 0, 59) + " " + field("minute", 0, 59) + " " + field("hour", 0, 23) + " * * " + field("weekday", 0, 6)}
	}
}
