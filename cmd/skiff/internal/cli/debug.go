package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

const (
	// commandFile is where the step's command lies in a debug pod.
	commandFile = "/tmp/skiff/command.sh"
	// placeCommand writes its input there.
	placeCommand = `mkdir -p "${0%/*}" && cat > "$0" && chmod 755 "$0"`
	// openShell takes the most comfortable shell that the image has.
	openShell = `command -v bash >/dev/null 2>&1 && exec bash; exec sh`
	// debugRemoval bounds how long the command waits at its end for the pod to
	// be gone; the daemon goes on with it.
	debugRemoval = 30 * time.Second
)

func (a *app) debugCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "debug RUN/TASK [-- COMMAND…]",
		Short: "Open a shell in a failed step's kept container, or in a fresh one like a step's",
		Long: "Open a shell in a fresh container like the one that a step ran in: its image, its inputs,\n" +
			"environment, mounts and resources. The step's own command lies there as " + commandFile + ";\n" +
			"what it writes as outputs is thrown away with the container, which is removed at the end.\n" +
			"With a command behind \"--\", that is run instead, and its exit code is this command's.\n\n" +
			"A step that is paused (\"skiff run --on-failure pause\") is entered itself, as its command left\n" +
			"it, and stays paused; --fresh makes another container all the same.\n\n" +
			"The container waits its turn for the machine like any step. The image needs a shell (sh).",
		Example: "  skiff debug 0197a3/train\n" +
			"  skiff debug 0197a3/train -- python3 -c 'import torch; print(torch.cuda.is_available())'\n" +
			"  skiff debug 0197a3/train -- " + commandFile,
		Args: func(cmd *cobra.Command, args []string) error {
			switch dash := cmd.ArgsLenAtDash(); {
			case dash == -1 && len(args) != 1, dash >= 0 && dash != 1:
				return errors.New("want RUN/TASK, and a command behind \"--\" if one is to be run")
			case dash == 1 && len(args) == 1:
				return errors.New("there is no command behind \"--\"")
			}
			return nil
		},
		ValidArgsFunction: a.completeLogs,
	}
	flags := &daemonFlags{}
	flags.register(cmd)
	fresh := cmd.Flags().Bool("fresh", false, "make a fresh container even where the step's own is kept")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		run, task, nested := strings.Cut(args[0], "/")
		if !nested || run == "" || task == "" {
			return refuse(fmt.Errorf("%q: want RUN/TASK", args[0]))
		}
		cfg, err := flags.config(a)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		s, err := a.connect(ctx, cfg, false)
		if err != nil {
			return err
		}
		defer s.close()
		if err := s.checkFlags(cmd, flags); err != nil {
			return refuse(err)
		}
		return a.debug(ctx, s.client, run, task, *fresh, args[1:])
	}
	return cmd
}

// debug makes the pod, runs one command in it, and removes it; one that is kept is
// only entered.
func (a *app) debug(ctx context.Context, c *client.Client, runID, name string, fresh bool, argv []string) (err error) {
	run, err := c.Run(ctx, a.namespace, runID)
	if err != nil {
		return err
	}
	task, err := findTask(run, name)
	if err != nil {
		return err
	}
	made, err := c.Debug(ctx, a.namespace, task.ID, fresh)
	if err != nil {
		return err
	}
	defer func() {
		if made.Kept {
			return
		}
		removing, cancel := context.WithTimeout(context.WithoutCancel(ctx), debugRemoval)
		defer cancel()
		if left := a.removePod(removing, c, made.Pod); left != nil {
			a.notef("pod %s could not be removed: %v", made.Pod, left)
		}
	}()
	for _, missing := range made.Missing {
		a.notef("%s", missing)
	}
	if err := a.awaitPod(ctx, c, made.Pod); err != nil {
		return err
	}
	if err := a.placeCommand(ctx, c, made); err != nil {
		return err
	}
	if len(argv) == 0 {
		return a.shell(ctx, c, task, made)
	}
	return exitWith(c.Exec(ctx, a.namespace, made.Pod, client.ExecOptions{Argv: argv, Stdin: a.In, Stdout: a.Out, Stderr: a.Err}))
}

// exitWith makes a command's exit code this program's.
func exitWith(code int, err error) error {
	if code != 0 {
		return &exitError{code: code, err: err}
	}
	return err
}

// awaitPod waits until the pod runs, and says what it waits for meanwhile.
func (a *app) awaitPod(ctx context.Context, c *client.Client, name string) error {
	said := ""
	err := c.Watch(ctx, mustKind("pods"), client.ListOptions{Namespace: a.namespace, Fields: "metadata.name=" + name}, func(e client.Event) error {
		var pod core.Pod
		if err := json.Unmarshal(e.Object, &pod); err != nil {
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		switch {
		case pod.Name != name:
			return nil
		case pod.Status.Phase == core.PodRunning:
			return errFound
		case pod.Status.Phase.Terminal() || e.Type == store.Deleted:
			return fmt.Errorf("the container did not start: %s", printable(pod.Status.Message))
		case pod.Status.Message != "" && pod.Status.Message != said:
			said = pod.Status.Message
			a.notef("%s", printable(said))
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return nil
	}
	return err
}

// removePod deletes a pod and waits until nothing of it is left.
func (a *app) removePod(ctx context.Context, c *client.Client, name string) error {
	var there json.RawMessage
	if err := c.Get(ctx, mustKind("pods"), a.namespace, name, &there); err != nil {
		if client.NotFound(err) {
			return nil
		}
		return err
	}
	asked := false
	// The watch shows the pod first as it is, so its end cannot be missed.
	err := c.Watch(ctx, mustKind("pods"), client.ListOptions{Namespace: a.namespace, Fields: "metadata.name=" + name}, func(e client.Event) error {
		if e.Type == store.Deleted {
			return errFound
		}
		if asked {
			return nil
		}
		asked = true
		if err := c.Delete(ctx, mustKind("pods"), a.namespace, name); err != nil {
			if client.NotFound(err) {
				return errFound
			}
			return err
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return nil
	}
	return err
}

// placeCommand puts the step's command into the container as a program.
func (a *app) placeCommand(ctx context.Context, c *client.Client, made *server.DebugPod) error {
	script := "#!/bin/sh\n# What the step ran.\n"
	if len(made.Command) == 0 {
		script += "echo 'the step ran the command of its image' >&2; exit 1\n"
	} else {
		script += "exec " + quoteWords(made.Command) + "\n"
	}
	var complaint strings.Builder
	code, err := c.Exec(ctx, a.namespace, made.Pod, client.ExecOptions{Argv: []string{"sh", "-c", placeCommand, commandFile},
		Stdin: strings.NewReader(script), Stdout: &complaint, Stderr: &complaint})
	if err != nil || code != 0 {
		return fmt.Errorf("put the step's command into the container: exit code %d, %w", code, errors.Join(err, errors.New(printable(complaint.String()))))
	}
	return nil
}

// quoteWords writes a command as a shell reads it.
func quoteWords(argv []string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		words[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}

// shell opens an interactive shell, on a terminal where there is one.
func (a *app) shell(ctx context.Context, c *client.Client, task *view.Task, made *server.DebugPod) error {
	opts := client.ExecOptions{Argv: []string{"sh", "-c", openShell}, Stdin: a.In, Stdout: a.Out, Stderr: a.Err}
	if made.Kept {
		a.notef("the container of %s (image %s), as its command left it; it stays when you leave, until it is released", task.Name, made.Image)
	} else {
		a.notef("a container like that of %s (image %s); its outputs and itself go when you leave", task.Name, made.Image)
	}
	a.notef("%s runs the step's command:", commandFile)
	a.notef("  %s", printable(short(json.RawMessage(quoteJSON(quoteWords(made.Command))))))
	in, isFile := a.In.(*os.File)
	if _, shown := terminal(a.Out); isFile && shown {
		restore, err := rawTerminal(in)
		if err == nil {
			defer restore()
			opts.TTY = true
			sizes, stop := terminalSizes(in)
			defer stop()
			opts.Resize = sizes
		}
	}
	return exitWith(c.Exec(ctx, a.namespace, made.Pod, opts))
}

func quoteJSON(text string) []byte {
	encoded, err := json.Marshal(text)
	if err != nil {
		return nil
	}
	return encoded
}
