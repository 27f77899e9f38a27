package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
)

// Exit codes. Others script against them.
const (
	exitOK        = 0
	exitFailed    = 1
	exitRefused   = 2
	exitCancelled = 130
)

// Environment that is read. Others script against these names.
const (
	envStateDir = "SKIFF_STATE_DIR"
	envHost     = "SKIFF_HOST"
	envToken    = "SKIFF_TOKEN"
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// app is one call of the program.
type app struct {
	Streams
	version string
	// stateDir and namespace are global flags.
	stateDir  string
	namespace string
}

// exitError ends the program with a code; a nil err says nothing more.
type exitError struct {
	code int
	err  error
}

// Error implements error.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// Unwrap returns the cause.
func (e *exitError) Unwrap() error { return e.err }

// refuse marks an error as one that was found before anything started.
func refuse(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: exitRefused, err: err}
}

// Main runs one command line and returns the exit code.
func Main(args []string, streams Streams, version string) int {
	a := &app{Streams: streams, version: version}
	root := a.root()
	root.SetArgs(args)
	// Cancelled by nobody: commands that live long listen to signals themselves.
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return exitOK
	}
	code := exitFailed
	if exit, ok := errors.AsType[*exitError](err); ok {
		code, err = exit.code, exit.err
	}
	if err != nil {
		a.printError(err)
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "skiff",
		Short: "Kubeflow pipelines on one machine, without Kubernetes",
		Long: "skiff runs Kubeflow pipelines on one machine: every step as its own container,\n" +
			"or as a process where there is no container engine.\n\n" +
			"Start with:  skiff run pipeline.yaml --follow",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return refuse(fmt.Errorf("%w; see \"%s --help\"", err, cmd.CommandPath()))
	})
	root.PersistentFlags().StringVar(&a.stateDir, "state-dir", defaultStateDir(),
		"folder that holds everything skiff keeps; also $"+envStateDir)
	root.PersistentFlags().StringVarP(&a.namespace, "namespace", "n", "default", "namespace (profile) to work in")
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(
		a.upCommand(), a.runCommand(), a.getCommand(), a.describeCommand(), a.logsCommand(), a.cancelCommand(), a.compareCommand(),
		a.debugCommand(), a.secretCommand(), a.configMapCommand(), a.claimCommand(),
		a.psCommand(), a.topCommand(), a.doctorCommand(), a.versionCommand(), a.backupCommand(), a.restoreCommand(),
		a.exportCommand(), a.importCommand(), a.reproduceCommand(),
		a.storeCheckCommand(), a.pipelineCommand(), a.retryCommand(), a.releaseCommand(),
		a.archiveCommand("archive", "is archived", "Put runs or experiments away"),
		a.archiveCommand("unarchive", "is available", "Take runs or experiments out of the archive"), a.deleteObjectsCommand(),
		a.scheduleCommand(), a.recurringActionCommand(enable), a.recurringActionCommand(disable), a.triggerCommand(),
		a.gcCommand(), a.pinCommand("pin", true), a.pinCommand("unpin", false),
	)
	wrapArgErrors(root)
	return root
}

// wrapArgErrors makes a wrong number of arguments a refusal, like a wrong flag.
func wrapArgErrors(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return refuse(fmt.Errorf("%w; see \"%s --help\"", err, cmd.CommandPath()))
			}
			return nil
		}
	}
	for _, child := range cmd.Commands() {
		wrapArgErrors(child)
	}
}

// defaultStateDir is empty where the user has no home; commands that need the
// folder then ask for the flag.
func defaultStateDir() string {
	if dir := os.Getenv(envStateDir); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "skiff")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "share", "skiff")
}

// absStateDir is the state folder as an absolute path.
func (a *app) absStateDir() (string, error) {
	if a.stateDir == "" {
		return "", refuse(fmt.Errorf("there is no home folder to keep state in; give one with --state-dir or $%s", envStateDir))
	}
	dir, err := filepath.Abs(a.stateDir)
	if err != nil {
		return "", refuse(fmt.Errorf("state folder %s: %w", a.stateDir, err))
	}
	return dir, nil
}

// client makes the client of the daemon that the environment names.
func (a *app) client() (*client.Client, error) {
	dir, err := a.absStateDir()
	if err != nil {
		return nil, err
	}
	c, err := client.New(client.Config{StateDir: dir, Host: os.Getenv(envHost), Token: os.Getenv(envToken)})
	if err != nil {
		return nil, refuse(err)
	}
	return c, nil
}

// printError writes an error for a person: every problem on a line of its own
// with its place in the file, and the hint below it.
func (a *app) printError(err error) {
	var status *client.StatusError
	if errors.As(err, &status) && status.Details != nil && len(status.Details.Causes) > 0 {
		for _, cause := range status.Details.Causes {
			a.printProblem(cause.Object, cause.Line, cause.Column, cause.Field, cause.Message, cause.Hint)
		}
		return
	}
	if list, ok := errors.AsType[problem.List](err); ok {
		for _, p := range list {
			a.printProblem(p.Object, p.Line, p.Column, p.Field, p.Err.Error(), p.Hint)
		}
		return
	}
	a.notef("skiff: %v", err)
}

func (a *app) printProblem(object string, line, column int, field, message, hint string) {
	var b strings.Builder
	b.WriteString("skiff: ")
	if object != "" {
		b.WriteString(object + ":")
		if line > 0 {
			fmt.Fprintf(&b, "%d:", line)
		}
		if column > 0 {
			fmt.Fprintf(&b, "%d:", column)
		}
		b.WriteString(" ")
	} else if line > 0 {
		fmt.Fprintf(&b, "line %d: ", line)
	}
	if field != "" {
		b.WriteString(field + ": ")
	}
	b.WriteString(message)
	if hint != "" {
		b.WriteString("\n       " + hint)
	}
	a.notef("%s", b.String())
}

// notef writes a line that is not a result.
func (a *app) notef(format string, args ...any) {
	_, _ = fmt.Fprintf(a.Err, format+"\n", args...)
}
