package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/memory"
)

// world is where the steps of these tests run. A step's arguments are a script,
// its statements separated by "; ":
//
//	out NAME TEXT    write an output parameter's file
//	meta JSON        report an executor output
//	write PATH TEXT  write a file, as a container would
//	env NAME VAR     write an output parameter from the environment
//	cat NAME PATH    write an output parameter from a file
//	hold GATE        wait until the test opens the gate, or RUN/GATE for this
//	                 run alone, or to be stopped
//	until N          fail while this is attempt N or an earlier one, from 0
//	lose N           vanish in the first N times that this attempt runs
//	exit CODE        end here
type world struct {
	*memory.Backend
	machine *memory.World

	mu      sync.Mutex
	gates   map[string]chan struct{}
	starts  map[string]int // executions begun, by the pod's name
	done    map[string]int // executions that reached the end of their script
	order   []string       // task paths in the order in which they began
	lost    map[string]int // by task and attempt
	running map[string]int // by the last part of the task's path
	peak    map[string]int
	stopped map[string]bool // task paths that were asked to end
}

func newWorld(dir string) *world {
	w := &world{
		gates: map[string]chan struct{}{}, starts: map[string]int{}, done: map[string]int{}, lost: map[string]int{},
		running: map[string]int{}, peak: map[string]int{}, stopped: map[string]bool{},
	}
	w.machine = memory.NewWorld(dir, w.execute)
	w.Backend = memory.New(memory.Config{World: w.machine})
	return w
}

// gate is the channel of a name; it is closed when the gate is open.
func (w *world) gate(name string) chan struct{} {
	if w.gates[name] == nil {
		w.gates[name] = make(chan struct{})
	}
	return w.gates[name]
}

func (w *world) open(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(w.gate(name))
}

// script is one execution of a step.
type script struct {
	w       *world
	ctx     context.Context //nolint:containedctx // The life of one execution.
	run     memory.Run
	pod     string
	task    string
	owner   string // the run
	env     map[string]string
	outputs map[string][]byte
}

func (w *world) execute(ctx context.Context, run memory.Run) memory.Result {
	s := &script{
		w: w, ctx: ctx, run: run, pod: run.Spec.Labels[core.LabelPod], task: run.Spec.Labels[core.LabelTask],
		owner: run.Spec.Labels[core.LabelRun], env: map[string]string{}, outputs: map[string][]byte{},
	}
	for _, entry := range append(append([]string(nil), run.Spec.Env...), run.Command.Env...) {
		name, value, _ := strings.Cut(entry, "=")
		s.env[name] = value
	}
	kind := s.task[strings.LastIndexByte(s.task, '.')+1:]
	w.mu.Lock()
	w.starts[s.pod]++
	w.order = append(w.order, s.task)
	w.running[kind]++
	w.peak[kind] = max(w.peak[kind], w.running[kind])
	w.mu.Unlock()
	code, message := 0, ""
	for statement := range strings.SplitSeq(strings.Join(run.Command.Argv[1:], "; "), "; ") {
		end, err := s.do(statement)
		if err != nil {
			code, message = 125, err.Error()
			break
		}
		if end != nil {
			code = *end
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[kind]--
	if code == 0 {
		w.done[s.pod]++
	}
	return memory.Result{ExitCode: code, Message: message, Outputs: s.outputs}
}

// do executes one statement; a result ends the script.
func (s *script) do(statement string) (*int, error) {
	ended := func(code int) (*int, error) { return &code, nil }
	verb, rest, _ := strings.Cut(statement, " ")
	name, text, _ := strings.Cut(rest, " ")
	switch verb {
	case "":
	case "out":
		s.outputs[parameterOutput+name] = []byte(text)
	case "meta":
		s.outputs[executorOutput] = []byte(rest)
	case "env":
		s.outputs[parameterOutput+name] = []byte(s.env[text])
	case "write":
		path := s.host(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return nil, err
		}
		return nil, os.WriteFile(path, []byte(text), 0o600)
	case "cat":
		data, err := os.ReadFile(s.host(text))
		if err != nil {
			return nil, err
		}
		s.outputs[parameterOutput+name] = data
	case "hold":
		s.w.mu.Lock()
		gate, own := s.w.gate(name), s.w.gate(s.owner+"/"+name)
		s.w.mu.Unlock()
		select {
		case <-gate:
		case <-own:
		case <-memory.Stopping(s.ctx):
			s.w.mu.Lock()
			s.w.stopped[s.task] = true
			s.w.mu.Unlock()
			return ended(143)
		case <-s.ctx.Done():
			return ended(137)
		}
	case "until":
		limit, err := strconv.Atoi(name)
		if err != nil {
			return nil, err
		}
		if index, err := strconv.Atoi(s.env[retryIndex]); err != nil || index < limit {
			return ended(1)
		}
	case "lose":
		limit, err := strconv.Atoi(name)
		if err != nil {
			return nil, err
		}
		key := s.owner + "/" + s.task + "#" + s.env[retryIndex]
		s.w.mu.Lock()
		s.w.lost[key]++
		lose := s.w.lost[key] <= limit
		s.w.mu.Unlock()
		if lose {
			s.w.machine.Kill(s.run.Spec.Name)
			return ended(137)
		}
	case "exit":
		code, err := strconv.Atoi(name)
		if err != nil {
			return nil, err
		}
		return ended(code)
	default:
		return nil, fmt.Errorf("no statement %q", statement)
	}
	return nil, nil
}

// host is where a path of the container is on this machine, the launcher's links
// followed.
func (s *script) host(path string) string {
	for _, link := range s.run.Command.Links {
		if path == link.Path {
			path = link.Target
		}
	}
	return memory.HostPath(s.run.Spec, path)
}

// began says how often a task was executed.
func (w *world) began(task string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, name := range w.order {
		if name == task {
			n++
		}
	}
	return n
}

func (w *world) peakOf(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peak[kind]
}

func (w *world) wasStopped(task string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopped[task]
}

func (w *world) containers() []runtime.Container {
	list, err := w.List(context.Background())
	if err != nil {
		panic(err)
	}
	return list
}
