package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/author"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/view"
)

// maxPackage is the largest file that is read; the daemon's own limits are
// tighter and better worded.
const maxPackage = 32 << 20

// runOptions are the flags of run.
type runOptions struct {
	daemonFlags

	out         *format
	params      []string
	paramsFile  string
	python      string
	name        string
	root        string
	labels      map[string]string
	priority    int32
	follow      bool
	detach      bool
	noCache     noCache
	cache       []string
	cacheMaxAge string
	verbatim    bool
	checkImages bool
	dryRun      bool
	experiment  string
	onFailure   string
	pause       time.Duration
	resume      string
	from        []string
}

func (a *app) runCommand() *cobra.Command {
	opts := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run [FILE]",
		Short: "Run a pipeline, compiled or as a Python file, and wait for its end",
		Long: "Run a compiled Kubeflow pipeline (YAML or JSON, or a .zip or .tar.gz of one; \"-\"\n" +
			"reads from the input) and wait for its end. Where no daemon is up, one is started\n" +
			"for the run.\n\n" +
			"FILE.py, or FILE.py:FUNCTION where the file defines several, is compiled first, with\n" +
			"the kfp of an interpreter: the one of --python, else of the active virtual\n" +
			"environment, else python3 in PATH.\n\n" +
			"--resume RUN goes on from a run that has ended: steps that succeeded there and are\n" +
			"unchanged (image, command, inputs, settings) are taken over, all else is run. What is\n" +
			"left out, FILE included, is as it was.\n\n" +
			"Exit codes: 0 the run succeeded, 1 it failed, 2 it was refused before anything\n" +
			"started, 130 it was cancelled. Ctrl-C cancels the run, a second one leaves it.",
		Example: "  skiff run pipeline.yaml -p epochs=3 --follow\n" +
			"  skiff run pipeline.py:train -p epochs=3\n" +
			"  skiff run pipeline.yaml --detach -o json\n" +
			"  skiff run --resume 0197a3 --from train -p epochs=5\n" +
			"  skiff run pipeline.yaml --fake-gpus dgx-a100 --fake-node cpu=64,mem=256Gi",
		Args: cobra.MaximumNArgs(1),
	}
	opts.out = outputFlag(cmd)
	opts.register(cmd)
	flags := cmd.Flags()
	flags.StringArrayVarP(&opts.params, "param", "p", nil, "a pipeline input, NAME=VALUE; may be given again")
	flags.StringVarP(&opts.paramsFile, "params-file", "f", "", "YAML or JSON file of pipeline inputs")
	flags.StringVar(&opts.python, "python", "", "interpreter that compiles a Python file; default is that of VIRTUAL_ENV, else python3")
	flags.StringVar(&opts.name, "name", "", "the run's display name")
	flags.StringVar(&opts.root, "pipeline-root", "", "where artifacts go, in place of the pipeline's own root")
	flags.StringToStringVar(&opts.labels, "label", nil, "a label of the run, KEY=VALUE; may be given again")
	flags.Int32Var(&opts.priority, "priority", 0, "runs of a higher priority get the machine first")
	flags.StringVar(&opts.experiment, "experiment", "", "the experiment that the run belongs to, by name or id; made where there is none")
	flags.BoolVar(&opts.follow, "follow", false, "show the progress of every step")
	flags.BoolVar(&opts.detach, "detach", false, "print the run's id and return")
	opts.registerCache(cmd)
	flags.BoolVar(&opts.verbatim, "verbatim", false, "run commands exactly as compiled, pip preludes included")
	flags.BoolVar(&opts.checkImages, "check-images", false, "make sure that every image can be had before anything starts")
	flags.BoolVar(&opts.dryRun, "dry-run", false, "only check the pipeline and its inputs")
	opts.registerResume(a, cmd)
	opts.registerPause(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := opts.file(args)
		if err != nil {
			return refuse(err)
		}
		return a.run(cmd, file, opts)
	}
	return cmd
}

func (a *app) run(cmd *cobra.Command, file string, opts *runOptions) error {
	submission, err := a.submission(cmd.Context(), file, opts)
	if err != nil {
		return refuse(err)
	}
	cfg, err := opts.config(a)
	if err != nil {
		return err
	}
	session, err := a.connect(cmd.Context(), cfg, opts.detach)
	if err != nil {
		return err
	}
	defer session.close()
	if err := session.checkFlags(cmd, &opts.daemonFlags); err != nil {
		return refuse(err)
	}
	if opts.experiment != "" && !opts.dryRun {
		if submission.Experiment, err = a.experimentID(cmd.Context(), session.client, opts.experiment); err != nil {
			return err
		}
	}
	run, err := session.client.Submit(cmd.Context(), submission, opts.dryRun)
	if client.Invalid(err) {
		return refuse(err)
	}
	if err != nil {
		return err
	}
	if opts.dryRun {
		a.notef("%s can be run", submission.Filename)
		return nil
	}
	if opts.detach {
		return a.printDetached(*opts.out, run.Name)
	}
	a.notef("run %s started", run.Name)
	document, err := a.await(cmd.Context(), session, run.Namespace, run.Name, opts.follow)
	if err != nil {
		return err
	}
	return a.finish(*opts.out, document)
}

func (a *app) printDetached(out format, runID string) error {
	if out.people() {
		_, err := fmt.Fprintln(a.Out, runID)
		return err
	}
	return a.printDocument(out, map[string]string{"run_id": runID})
}

// finish prints the result and turns it into the exit code.
func (a *app) finish(out format, run *view.Run) error {
	var err error
	if out.people() {
		if err = a.printRunHead(run); err == nil {
			err = a.printResults(run)
		}
		a.explainFailures(run)
	} else {
		err = a.printDocument(out, run)
	}
	if err != nil {
		return err
	}
	if code := exitCode(run.State); code != exitOK {
		return &exitError{code: code}
	}
	return nil
}

// explainFailures names the steps that failed and where to read on.
func (a *app) explainFailures(run *view.Run) {
	for i := range run.Tasks {
		t := &run.Tasks[i]
		if t.State != "FAILED" || t.Pod == "" {
			continue
		}
		a.notef("%s failed: %s", t.Name, printable(t.Message))
		a.notef("  skiff logs %s/%s%s", run.RunID, t.Name, a.stateDirHint())
	}
	if run.State == skiff.StateFailed {
		a.notef("  skiff run --resume %s%s makes a new run that takes over what succeeded", run.RunID, a.stateDirHint())
	}
}

// stateDirHint completes a command that a person shall copy.
func (a *app) stateDirHint() string {
	hint := ""
	if a.stateDir != defaultStateDir() {
		hint += " --state-dir " + a.stateDir
	}
	if a.namespace != "default" {
		hint += " -n " + a.namespace
	}
	return hint
}

func (a *app) submission(ctx context.Context, file string, opts *runOptions) (server.Submission, error) {
	s := server.Submission{
		Namespace: a.namespace, DisplayName: opts.name, PipelineRoot: opts.root, DisableCache: opts.noCache.all, CacheMaxAge: opts.cacheMaxAge,
		Verbatim: opts.verbatim, CheckImages: opts.checkImages, Priority: opts.priority, Labels: opts.labels,
		Filename: filepath.Base(file),
	}
	var err error
	if file == "" {
		s.Filename = "the pipeline of run " + opts.resume
	} else if s.Package, err = a.readPackage(ctx, file, opts.python); err != nil {
		return s, err
	}
	if s.PauseOnFailureSeconds, err = opts.pauseSeconds(); err != nil {
		return s, err
	}
	if s.CacheTasks, err = opts.cacheTasks(); err != nil {
		return s, err
	}
	if opts.resume != "" {
		s.Resume = &skiff.Resume{Run: opts.resume, From: opts.from}
	}
	if source, _, ok := author.Split(file); ok {
		s.Filename = filepath.Base(source) + ".yaml"
	}
	if opts.paramsFile != "" {
		if s.Parameters, err = readParams(opts.paramsFile); err != nil {
			return s, err
		}
	}
	if s.Arguments, err = arguments(opts.params); err != nil {
		return s, err
	}
	for name := range s.Arguments {
		delete(s.Parameters, name) // the command line decides over the file
	}
	return s, nil
}

// arguments are the texts given with -p, by name.
func arguments(params []string) (map[string]string, error) {
	all := make(map[string]string, len(params))
	for _, p := range params {
		name, value, ok := strings.Cut(p, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("-p %s: want NAME=VALUE", p)
		}
		if _, twice := all[name]; twice {
			return nil, fmt.Errorf("-p %s: %s is given twice", p, name)
		}
		all[name] = value
	}
	return all, nil
}

func (a *app) readPackage(ctx context.Context, file, python string) ([]byte, error) {
	if source, function, ok := author.Split(file); ok {
		return author.Compile(ctx, author.Request{File: source, Function: function, Python: python, Output: a.Err})
	}
	if python != "" {
		return nil, fmt.Errorf("--python: %s is no Python file, so nothing is compiled; leave the flag out", file)
	}
	in := a.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read the pipeline: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, maxPackage+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the pipeline: %w", err)
	case len(content) > maxPackage:
		return nil, fmt.Errorf("read the pipeline: %s is larger than %s; is it a compiled pipeline?", file, view.Bytes(maxPackage))
	case len(content) == 0:
		return nil, fmt.Errorf("read the pipeline: %s is empty", file)
	}
	return content, nil
}

func readParams(file string) (map[string]json.RawMessage, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the pipeline's inputs: %w", err)
	}
	asJSON, err := yaml.YAMLToJSONStrict(content)
	if err != nil {
		return nil, fmt.Errorf("read the pipeline's inputs: %s: %w", file, err)
	}
	var params map[string]json.RawMessage
	if err := json.Unmarshal(asJSON, &params); err != nil {
		return nil, fmt.Errorf("read the pipeline's inputs: %s: want a mapping of names to values", file)
	}
	return params, nil
}

// checkFlags refuses a daemon's flags where the daemon is already up: they
// would silently have no effect.
func (s *session) checkFlags(cmd *cobra.Command, opts *daemonFlags) error {
	used := opts.given(cmd)
	if s.started || len(used) == 0 {
		return nil
	}
	node, err := s.settings(cmd.Context())
	if err != nil {
		return fmt.Errorf("ask the running daemon for its settings: %w", err)
	}
	if len(used) == 1 && used[0] == "--runtime" && (opts.runtime == "auto" || opts.runtime == node.Runtime) {
		return nil
	}
	return fmt.Errorf("%s: a daemon is already up on this state folder (runtime %s) and keeps its own settings; "+
		"leave the flags out, stop that daemon, or choose another --state-dir", strings.Join(used, ", "), node.Runtime)
}

// settings asks the daemon for its node. One that has just started knows its
// runtime a moment later, when it has looked at the machine.
func (s *session) settings(ctx context.Context) (*view.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(redial)
	defer tick.Stop()
	for {
		node, err := s.client.Node(ctx)
		if err != nil || node.Runtime != "" {
			return node, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// errLeft is the cause where the user left a run that goes on.
var errLeft = errors.New("left")

// await waits for the end of a run and returns its document.
func (a *app) await(ctx context.Context, s *session, namespace, name string, follow bool) (*view.Run, error) {
	w := &waiter{app: a, session: s, namespace: namespace, run: name, show: a.renderer(follow)}
	return w.wait(ctx)
}
