package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/view"
)

// renderer chooses how progress is shown: drawn in place on a terminal, as
// lines elsewhere, not at all where nobody asked.
func (a *app) renderer(follow bool) renderer {
	if !follow {
		return silent{}
	}
	if file, ok := terminal(a.Err); ok && os.Getenv("TERM") != "dumb" {
		return &live{out: a.Err, size: func() (int, int) { return terminalSize(file) }, colour: os.Getenv("NO_COLOR") == ""}
	}
	return &lines{out: a.Err, shown: map[string]string{}}
}

type silent struct{}

func (silent) update(*progress, time.Time) {}
func (silent) tick() time.Duration         { return 0 }
func (silent) finish()                     {}

// step is a task as progress shows it.
type step struct {
	name  string
	state skiff.State
	// note is why it waits, failed or was skipped.
	note     string
	duration string
	order    time.Time
}

// steps lists the tasks that do something themselves, in the order they began.
func (p *progress) steps(now time.Time) []step {
	var all []step
	for _, task := range p.tasks {
		inner := task.Spec.Type == skiff.TaskDAG || task.Spec.Type == skiff.TaskLoop || task.Spec.Type == skiff.TaskIteration
		if inner && task.Status.State != skiff.StateFailed {
			continue
		}
		s := step{name: task.Spec.Path, state: cmp.Or(task.Status.State, skiff.StatePending), note: task.Status.Message,
			order: task.Status.StartedAt}
		if s.order.IsZero() {
			// What has not begun comes last.
			s.order = task.CreationTimestamp.AddDate(1000, 0, 0)
		} else {
			end := task.Status.FinishedAt
			if end.IsZero() {
				end = now
			}
			s.duration = view.Duration(end.Sub(task.Status.StartedAt))
		}
		switch reuse := task.Status.Reuse; {
		case reuse != nil && reuse.From != "":
			s.note = "reused"
		case task.Status.Cached:
			s.note = "cached"
		}
		if pod := p.pods[task.Status.Pod]; pod != nil && !s.state.Terminal() {
			s.note = cmp.Or(waiting(pod), s.note)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b step) int { return cmp.Or(a.order.Compare(b.order), strings.Compare(a.name, b.name)) })
	return all
}

// waiting is a pod's own sentence while it has not begun to run.
func waiting(pod *core.Pod) string {
	if pod.Status.Phase == core.PodRunning || pod.Status.Phase.Terminal() {
		return ""
	}
	return cmp.Or(pod.Status.Message, pod.Status.Reason)
}

// lines shows progress as one line for each change.
type lines struct {
	out   io.Writer
	shown map[string]string
	start time.Time
}

func (l *lines) tick() time.Duration { return 0 }
func (l *lines) finish()             {}

func (l *lines) update(p *progress, now time.Time) {
	if l.start.IsZero() {
		l.start = now
		if !p.run.CreationTimestamp.IsZero() {
			l.start = p.run.CreationTimestamp
		}
	}
	for _, s := range p.steps(now) {
		text := string(s.state)
		if s.note != "" {
			text += "  " + printable(s.note)
		}
		if l.shown[s.name] == text {
			continue
		}
		l.shown[s.name] = text
		if s.state.Terminal() && s.duration != "" {
			text += "  (" + s.duration + ")"
		}
		_, _ = fmt.Fprintf(l.out, "%8s  %-32s %s\n", view.Duration(now.Sub(l.start)), s.name, text)
	}
}

// live draws the run's steps in place.
type live struct {
	out    io.Writer
	size   func() (width, height int)
	colour bool
	// drawn is how many lines the last picture took.
	drawn int
	last  string
}

// liveTick moves elapsed times on; faster than the eye reads is no use.
const liveTick = 200 * time.Millisecond

func (l *live) tick() time.Duration { return liveTick }

func (l *live) finish() { l.drawn, l.last = 0, "" }

// ANSI sequences: clear to the end of the screen, colours, and colours off.
const (
	clearBelow = "\x1b[J"
	green      = "\x1b[32m"
	red        = "\x1b[31m"
	yellow     = "\x1b[33m"
	dim        = "\x1b[2m"
	plainText  = "\x1b[0m"
)

func mark(s skiff.State) (symbol, colour string) {
	switch s {
	case skiff.StateSucceeded:
		return "✓", green
	case skiff.StateFailed:
		return "✗", red
	case skiff.StateRunning, skiff.StateCanceling:
		return "●", yellow
	case skiff.StateSkipped, skiff.StateCanceled:
		return "-", dim
	default:
		return "○", dim
	}
}

func (l *live) update(p *progress, now time.Time) {
	width, height := l.size()
	picture := l.picture(p, now, width, height)
	text := strings.Join(picture, "\n") + "\n"
	if text == l.last {
		return
	}
	back := ""
	if l.drawn > 0 {
		back = fmt.Sprintf("\x1b[%dA\r", l.drawn)
	}
	_, _ = io.WriteString(l.out, back+clearBelow+text)
	l.drawn, l.last = len(picture), text
}

// picture is the run in at most height-1 lines of at most width characters.
func (l *live) picture(p *progress, now time.Time, width, height int) []string {
	steps := p.steps(now)
	done := 0
	for _, s := range steps {
		if s.state.Terminal() {
			done++
		}
	}
	state := string(cmp.Or(p.run.Status.State, skiff.StatePending))
	if p.run.Status.Fake {
		state += " (fake node)"
	}
	elapsed := ""
	if !p.run.CreationTimestamp.IsZero() {
		end := p.run.Status.FinishedAt
		if end.IsZero() {
			end = now
		}
		elapsed = view.Duration(end.Sub(p.run.CreationTimestamp))
	}
	lines := []string{l.cut(fmt.Sprintf("%s  %s  %d of %d steps done  %s", p.run.Spec.PipelineName, state, done, len(steps), elapsed), width, "")}
	steps, finished, later := fit(steps, max(height-4, 3))
	if finished > 0 {
		lines = append(lines, l.cut(fmt.Sprintf("  … %d more done", finished), width, dim))
	}
	names := 0
	for _, s := range steps {
		names = max(names, len([]rune(s.name)))
	}
	names = min(names, max(width/2, 10))
	for _, s := range steps {
		symbol, colour := mark(s.state)
		lines = append(lines, l.cut(fmt.Sprintf("  %s %-*s  %7s  %s", symbol, names, shorten(s.name, names), s.duration, printable(s.note)), width, colour))
	}
	if later > 0 {
		lines = append(lines, l.cut(fmt.Sprintf("  … %d more to come", later), width, dim))
	}
	return lines
}

// fit drops steps until they fit the room: first what is done, which matters
// least while there is more to see, then what comes last.
func fit(steps []step, room int) (shown []step, finished, later int) {
	surplus := len(steps) - room
	for _, s := range steps {
		if finished < surplus && s.state.Terminal() && s.state != skiff.StateFailed {
			finished++
			continue
		}
		shown = append(shown, s)
	}
	if later = len(shown) - room; later > 0 {
		shown = shown[:room]
	}
	return shown, finished, max(later, 0)
}

// cut makes text fit the width, so that no line wraps and the way back up is
// known, and colours it.
func (l *live) cut(text string, width int, colour string) string {
	text = strings.TrimRight(shorten(text, width-1), " ")
	if colour == "" || !l.colour {
		return text
	}
	return colour + text + plainText
}

func shorten(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width || width < 1 {
		return text
	}
	return string(runes[:width-1]) + "…"
}

// terminalSize is 80 by 24 where the terminal does not say.
func terminalSize(file *os.File) (width, height int) {
	size, err := unix.IoctlGetWinsize(int(file.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return 80, 24
	}
	return int(size.Col), int(size.Row)
}
