package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
)

func (a *app) scheduleEditCommand() *cobra.Command {
	opts := &scheduleOptions{}
	cmd := &cobra.Command{
		Use:   "edit RECURRINGRUN",
		Short: "Change a recurring run",
		Long: "Change what the flags say of a recurring run, and nothing else. RECURRINGRUN is an id, or a\n" +
			"display name that only one has. Inputs given with -p or -f take the place of those of their\n" +
			"names; an empty --start, --end or --version takes the bound or the version away. Runs that\n" +
			"are there stay as they are; a schedule that is another counts from now on.",
		Example: "  skiff schedule edit train --every 30m\n" +
			"  skiff schedule edit train -p epochs=5 --no-catchup=false --end ''",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeRecurring,
	}
	opts.out = outputFlag(cmd)
	opts.registerSpec(cmd, 0)
	cmd.Flags().Lookup("name").Usage = "display name"
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.scheduleEdit(cmd, args[0], opts) }
	return cmd
}

func (a *app) scheduleEdit(cmd *cobra.Command, name string, opts *scheduleOptions) error {
	ctx := cmd.Context()
	c, err := a.client()
	if err != nil {
		return err
	}
	found, err := recurringRun(ctx, c, a.namespace, name)
	if err != nil {
		return err
	}
	edit := &scheduleEdit{app: a, client: c, opts: opts, found: found, given: cmd.Flags().Changed, changes: map[string]any{}}
	if err := edit.collect(ctx); err != nil {
		return err
	}
	if len(edit.changes) == 0 {
		return refuse(fmt.Errorf("nothing is to change; say what by flags, see \"%s --help\"", cmd.CommandPath()))
	}
	err = c.ChangeRecurringRun(ctx, found.Name, edit.changes)
	if client.Invalid(err) {
		return refuse(err)
	}
	if err != nil {
		return err
	}
	return a.printScheduled(ctx, &session{client: c}, found.Name, "changed", *opts.out)
}

// scheduleEdit puts together the members of a message that change a recurring run.
type scheduleEdit struct {
	app     *app
	client  *client.Client
	opts    *scheduleOptions
	found   *skiff.RecurringRun
	given   func(flag string) bool
	changes map[string]any
}

func (e *scheduleEdit) anyGiven(flags ...string) bool {
	return slices.ContainsFunc(flags, e.given)
}

func (e *scheduleEdit) collect(ctx context.Context) error {
	if e.given("name") {
		e.changes["display_name"] = e.opts.name
	}
	if e.given("description") {
		e.changes["description"] = e.opts.description
	}
	if e.given("no-catchup") {
		e.changes["no_catchup"] = e.opts.noCatchup
	}
	if e.given("max-concurrency") {
		if e.opts.concurrency < 1 {
			return refuse(fmt.Errorf("--max-concurrency %d: want at least 1", e.opts.concurrency))
		}
		e.changes["max_concurrency"] = fmt.Sprint(e.opts.concurrency)
	}
	if err := e.trigger(); err != nil {
		return refuse(err)
	}
	if e.given("experiment") {
		id, err := e.app.experimentID(ctx, e.client, cmp.Or(e.opts.experiment, skiff.DefaultExperimentName))
		if err != nil {
			return err
		}
		e.changes["experiment_id"] = id
	}
	return e.pipeline(ctx)
}

// trigger is the whole schedule where a part of it is given: the rest is as it was.
func (e *scheduleEdit) trigger() error {
	if !e.anyGiven("cron", "every", "start", "end") {
		return nil
	}
	now, merged := &e.found.Spec.Schedule, *e.opts
	if !e.anyGiven("cron", "every") {
		merged.cron, merged.every = now.Cron, time.Duration(now.IntervalSeconds)*time.Second
	}
	if !e.given("start") {
		merged.start = stamped(now.StartTime)
	}
	if !e.given("end") {
		merged.end = stamped(now.EndTime)
	}
	trigger, err := merged.trigger()
	if err != nil {
		return err
	}
	e.changes["trigger"] = trigger
	return nil
}

// pipeline is the version and the inputs.
func (e *scheduleEdit) pipeline(ctx context.Context) error {
	inputs := e.anyGiven("param", "params-file")
	if !inputs && !e.anyGiven("version", "pipeline-root") {
		return nil
	}
	reference := e.found.Spec.PipelineVersion
	if e.given("version") && reference == nil {
		return refuse(errors.New("--version: its pipeline was handed in as a file; versions are of pipelines that \"skiff pipeline upload\" keeps"))
	}
	pkg, err := e.load(ctx, inputs)
	if err != nil {
		return err
	}
	if !inputs && !e.given("pipeline-root") {
		return nil
	}
	config := client.RuntimeConfig{Parameters: maps.Clone(e.found.Spec.Parameters), PipelineRoot: e.found.Spec.PipelineRoot}
	if e.given("pipeline-root") {
		config.PipelineRoot = e.opts.root
	}
	if inputs {
		values, err := typed(pkg, e.opts.params, e.opts.paramsFile)
		if err != nil {
			return refuse(err)
		}
		if config.Parameters == nil {
			config.Parameters = map[string]json.RawMessage{}
		}
		maps.Copy(config.Parameters, values)
	}
	e.changes["runtime_config"] = config
	return nil
}

// load reads the pipeline that the inputs are for, where they need it, and notes
// the version where that is to change.
func (e *scheduleEdit) load(ctx context.Context, inputs bool) (*kfp.Package, error) {
	reference := e.found.Spec.PipelineVersion
	switch {
	case e.given("version"):
		version, err := e.client.NamedVersion(ctx, reference.PipelineID, e.opts.version)
		if err != nil {
			return nil, err
		}
		if version == nil {
			return nil, refuse(fmt.Errorf("its pipeline has no version %s; \"skiff get pipelineversions\" lists those there are", e.opts.version))
		}
		changed := client.PipelineVersionReference{PipelineID: reference.PipelineID}
		if e.opts.version != "" {
			changed.VersionID = version.ID
		}
		e.changes["pipeline_version_reference"] = changed
		return kfp.Load(e.found.Spec.DisplayName, version.Spec, kfp.Limits{})
	case !inputs:
		return nil, nil
	}
	spec, err := e.client.RecurringRunSpec(ctx, e.found.Name)
	if err != nil {
		return nil, err
	}
	return kfp.Load(e.found.Spec.DisplayName, spec, kfp.Limits{})
}
