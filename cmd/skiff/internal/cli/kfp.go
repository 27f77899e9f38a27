package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
)

// pluralOf takes a kind as people write it, one of those allowed.
func pluralOf(word string, allowed ...string) (string, error) {
	for _, plural := range allowed {
		if word == plural || word+"s" == plural {
			return plural, nil
		}
	}
	return "", refuse(fmt.Errorf("%q: want one of %s", word, strings.Join(allowed, ", ")))
}

// completeKinds offers kinds for the first argument and names for the others.
func (a *app) completeKinds(kinds ...string) completer {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return withPrefix(slices.Clone(kinds), typed), cobra.ShellCompDirectiveNoFileComp
		}
		plural, err := pluralOf(args[0], kinds...)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return withPrefix(a.names(cmd.Context(), plural), typed), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) retryCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retry RUN...",
		Short: "Take runs up again that have failed or were cancelled",
		Long: "Take runs up again that have failed or were cancelled. Steps that succeeded keep their\n" +
			"results; those that did not, and what waited for them, are run.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.complete("runs"),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.onEach(cmd.Context(), args, "is retried", "run", func(c *client.Client, id string) error {
			return c.Act(cmd.Context(), "runs", id, "retry")
		})
	}
	return cmd
}

// onEach does one thing to several objects and says so of each.
func (a *app) onEach(_ context.Context, names []string, done, kind string, do func(c *client.Client, name string) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := do(c, name); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(a.Out, "%s %s %s\n", kind, name, done); err != nil {
			return err
		}
	}
	return nil
}

// kindAction is a command that does one thing to objects of a kind that it is told.
type kindAction struct {
	use, short, long string
	// kinds are those it can be done to, done is what such an object is after it.
	kinds []string
	done  string
	do    func(ctx context.Context, c *client.Client, plural, name string) error
}

func (a *app) kindCommand(action kindAction) *cobra.Command {
	cmd := &cobra.Command{
		Use: action.use, Short: action.short, Long: action.long,
		Args: cobra.MinimumNArgs(2), ValidArgsFunction: a.completeKinds(action.kinds...),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		plural, err := pluralOf(args[0], action.kinds...)
		if err != nil {
			return err
		}
		return a.onEach(cmd.Context(), args[1:], action.done, strings.TrimSuffix(plural, "s"), func(c *client.Client, name string) error {
			return action.do(cmd.Context(), c, plural, name)
		})
	}
	return cmd
}

func (a *app) archiveCommand(action, done, short string) *cobra.Command {
	return a.kindCommand(kindAction{
		use: action + " KIND ID...", short: short, done: done, kinds: []string{"runs", "experiments"},
		long: short + ". KIND is run or experiment; an experiment takes its runs along\nwhen it is archived, and disables its recurring runs.",
		do: func(ctx context.Context, c *client.Client, plural, id string) error {
			return c.Act(ctx, plural, id, action)
		},
	})
}

func (a *app) deleteObjectsCommand() *cobra.Command {
	cascade := false
	cmd := a.kindCommand(kindAction{
		use: "delete KIND NAME...", short: "Delete runs, experiments, recurring runs, pipelines or pipeline versions", done: "is deleted",
		long: "Delete objects that are not needed any more: a run that has ended, with its tasks,\n" +
			"logs and what it made, unless that is pinned or used by others; a pipeline, with --cascade its versions too. The runs of an experiment or of a\n" +
			"pipeline stay.",
		kinds: []string{"runs", "experiments", "recurringruns", "pipelines", "pipelineversions"},
		do: func(ctx context.Context, c *client.Client, plural, name string) error {
			switch plural {
			case "pipelines":
				var p kfp.Pipeline
				if err := c.Get(ctx, mustKind(plural), a.namespace, name, &p); err != nil {
					return err
				}
				query := url.Values{}
				if cascade {
					query.Set("cascade", "true")
				}
				return c.Remove(ctx, query, "pipelines", p.UID)
			case "pipelineversions":
				return a.removeVersion(ctx, c, name)
			case "recurringruns":
				found, err := recurringRun(ctx, c, a.namespace, name)
				if err != nil {
					return err
				}
				return c.Remove(ctx, nil, plural, found.Name)
			default:
				return c.Remove(ctx, nil, plural, name)
			}
		},
	})
	cmd.Flags().BoolVar(&cascade, "cascade", false, "delete a pipeline's versions with it")
	return cmd
}

func (a *app) removeVersion(ctx context.Context, c *client.Client, name string) error {
	var v kfp.PipelineVersion
	if err := c.Get(ctx, mustKind("pipelineversions"), a.namespace, name, &v); err != nil {
		return err
	}
	var p kfp.Pipeline
	if err := c.Get(ctx, mustKind("pipelines"), a.namespace, v.Spec.PipelineName, &p); err != nil {
		return err
	}
	return c.Remove(ctx, nil, "pipelines", p.UID, "versions", v.UID)
}

func (a *app) pipelineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pipeline",
		Short: "Keep pipelines in the daemon",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.uploadCommand())
	return cmd
}

func (a *app) uploadCommand() *cobra.Command {
	var upload client.Upload
	var pipeline string
	cmd := &cobra.Command{
		Use:   "upload FILE",
		Short: "Keep a compiled pipeline, to be run by its name",
		Long: "Keep a compiled pipeline in the daemon: as a new pipeline with its first version, or with\n" +
			"--pipeline as a further version of one.",
		Args: cobra.ExactArgs(1),
	}
	out := outputFlag(cmd)
	cmd.Flags().StringVar(&upload.Name, "name", "", "name of the pipeline, or of the version; the file's name if left out")
	cmd.Flags().StringVar(&upload.Description, "description", "", "what it is for")
	cmd.Flags().StringVar(&pipeline, "pipeline", "", "make a version of this pipeline")
	_ = cmd.RegisterFlagCompletionFunc("pipeline", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return withPrefix(a.names(cmd.Context(), "pipelines"), typed), cobra.ShellCompDirectiveNoFileComp
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var err error
		if upload.Package, err = a.readPackage(cmd.Context(), args[0], ""); err != nil {
			return refuse(err)
		}
		upload.Filename, upload.Namespace = filepath.Base(args[0]), a.namespace
		c, err := a.client()
		if err != nil {
			return err
		}
		if pipeline != "" {
			var p kfp.Pipeline
			if err := c.Get(cmd.Context(), mustKind("pipelines"), a.namespace, pipeline, &p); err != nil {
				return err
			}
			upload.PipelineID = p.UID
		}
		made, err := c.UploadPipeline(cmd.Context(), upload)
		if client.Invalid(err) {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		if !out.people() {
			return a.printDocument(*out, made)
		}
		if made.VersionID != "" {
			_, err = fmt.Fprintf(a.Out, "version %s (%s) of pipeline %s is kept\n", made.Name, made.VersionID, pipeline)
		} else {
			_, err = fmt.Fprintf(a.Out, "pipeline %s (%s) is kept\n", made.Name, made.PipelineID)
		}
		return err
	}
	return cmd
}

// experimentID is the id of an experiment that is named by its id or its display
// name; one that is not there is made.
func (a *app) experimentID(ctx context.Context, c *client.Client, name string) (string, error) {
	list, err := c.List(ctx, mustKind("experiments"), client.ListOptions{Namespace: a.namespace})
	if err != nil {
		return "", err
	}
	for _, item := range list.Items {
		var e skiff.Experiment
		if err := json.Unmarshal(item, &e); err != nil {
			return "", fmt.Errorf("read the daemon's answer: %w", err)
		}
		if e.Name == name || e.Spec.DisplayName == name {
			return e.Name, nil
		}
	}
	if name == skiff.DefaultExperimentName {
		return c.DefaultExperiment(ctx, a.namespace)
	}
	return c.MakeExperiment(ctx, a.namespace, name)
}
