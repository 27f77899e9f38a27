package skiff

import (
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/skiff-ml/skiff/api/problem"
)

// Schedule says when runs are made: by a cron expression or at an interval. All
// of its times are whole seconds.
type Schedule struct {
	// Cron has six fields, seconds first, or is a descriptor such as "@every 1h",
	// which is the same as an interval. Times are UTC.
	Cron string `json:"cron,omitempty"`
	// IntervalSeconds is the time between two runs, and before the first one.
	IntervalSeconds int64 `json:"intervalSeconds,omitempty"`
	// StartTime and EndTime bound the times; zero for none. As in KFP the first
	// time comes after the start, an interval's one interval after it, and a start
	// in the past makes up for all that would have been since, unless NoCatchup
	// says otherwise.
	StartTime time.Time `json:"startTime,omitzero"`
	EndTime   time.Time `json:"endTime,omitzero"`
}

// Equal reports whether two schedules have the same times.
func (s *Schedule) Equal(other *Schedule) bool {
	return s.Cron == other.Cron && s.IntervalSeconds == other.IntervalSeconds &&
		s.StartTime.Equal(other.StartTime) && s.EndTime.Equal(other.EndTime)
}

// Validate says everything that is wrong with a schedule.
func (s *Schedule) Validate() problem.List {
	var problems problem.List
	switch {
	case s.Cron != "" && s.IntervalSeconds != 0:
		problems.Add("trigger", "has a cron schedule and a periodic one; want one of them")
	case s.Cron != "":
		if err := s.validateCron(); err != nil {
			problems.Add("trigger.cron_schedule.cron", "%w", err).Hint = "six fields (second minute hour day month weekday), as in \"0 30 9 * * 1-5\", or @every 1h"
		}
	case s.IntervalSeconds < 1:
		problems.Add("trigger.periodic_schedule.interval_second", "is %d; want at least one second", s.IntervalSeconds)
	case s.IntervalSeconds > maxInterval:
		problems.Add("trigger.periodic_schedule.interval_second", "is %d; want at most %d, a hundred years", s.IntervalSeconds, int64(maxInterval))
	}
	if !s.EndTime.IsZero() && !s.StartTime.IsZero() && !s.EndTime.After(s.StartTime) {
		problems.Add("trigger.end_time", "%s is not after the start, %s", s.EndTime.Format(time.RFC3339), s.StartTime.Format(time.RFC3339))
	}
	return problems
}

// maxInterval keeps an interval within what a duration holds.
const maxInterval = 100 * 366 * 24 * 3600

func (s *Schedule) validateCron() error {
	if err := checkEvery(s.Cron); err != nil {
		return err
	}
	p, err := s.plan()
	if err != nil {
		return err
	}
	// The parser knows no lengths of months, and looks five years ahead.
	if p.step == 0 && p.cron.Next(time.Date(2024, time.January, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return fmt.Errorf("cron expression %q: there is no such day", s.Cron)
	}
	return nil
}

// checkEvery refuses intervals that the parser would silently make longer.
func checkEvery(expression string) error {
	text, every := strings.CutPrefix(expression, "@every ")
	if !every {
		return nil
	}
	interval, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return nil // the parser says what is wrong
	case interval < time.Second || interval%time.Second != 0:
		return fmt.Errorf("cron expression %q: want whole seconds, at least one", expression)
	case interval/time.Second > maxInterval:
		return fmt.Errorf("cron expression %q: want at most a hundred years", expression)
	}
	return nil
}

// plan is a schedule made ready: an interval, or a cron expression that was read.
type plan struct {
	step int64 // in seconds; 0 for a cron expression
	cron cron.Schedule
}

func (s *Schedule) plan() (plan, error) {
	if s.Cron == "" {
		return plan{step: s.IntervalSeconds}, nil
	}
	if strings.Contains(s.Cron, "TZ=") {
		// The parser knows them; but times here are UTC, as on the cluster.
		return plan{}, fmt.Errorf("cron expression %q: a time zone is not taken; times are UTC", s.Cron)
	}
	parser := cron.NewParser(cron.Second | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)
	schedule, err := parser.Parse(s.Cron)
	if err != nil {
		return plan{}, fmt.Errorf("cron expression %q: %w", s.Cron, err)
	}
	if every, constant := schedule.(cron.ConstantDelaySchedule); constant {
		return plan{step: int64(every.Delay / time.Second)}, nil
	}
	return plan{cron: schedule}, nil
}

// after is the first time after the given second; false where there is none.
func (p *plan) after(second int64) (int64, bool) {
	if p.cron == nil {
		return second + p.step, p.step > 0
	}
	next := p.cron.Next(time.Unix(second, 0).UTC())
	return next.Unix(), !next.IsZero()
}

// Next is the first time on the schedule after the given one, from which an
// interval counts. It is zero where there is none, and where the schedule is not
// valid.
func (s *Schedule) Next(after time.Time) time.Time {
	p, err := s.plan()
	if err != nil {
		return time.Time{}
	}
	next, found := p.after(after.Unix())
	if !found || (!s.EndTime.IsZero() && next > s.EndTime.Unix()) {
		return time.Time{}
	}
	return time.Unix(next, 0).UTC()
}

// newest is the last time on the schedule that is not after now; first, which is
// on the schedule, is not after now either.
func (s *Schedule) newest(first, now time.Time) time.Time {
	p, err := s.plan()
	if err != nil {
		return first
	}
	low, end := first.Unix(), now.Unix()
	if !s.EndTime.IsZero() {
		end = min(end, s.EndTime.Unix())
	}
	if p.cron == nil {
		return time.Unix(low+(end-low)/p.step*p.step, 0).UTC()
	}
	// By halving: low is on the schedule, and there is nothing on it from high to
	// the end. Years of seconds, one after another, would take too long.
	for high := end; low < high; {
		middle := low + (high-low)/2
		if next, found := p.after(middle); found && next <= end {
			low = next
		} else {
			high = middle
		}
	}
	return time.Unix(low, 0).UTC()
}
