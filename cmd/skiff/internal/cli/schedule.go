package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/author"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
)

// The actions on recurring runs.
const (
	enable  = "enable"
	disable = "disable"
)

// scheduleOptions are the flags of schedule.
type scheduleOptions struct {
	daemonFlags

	out         *format
	params      []string
	paramsFile  string
	python      string
	name        string
	description string
	root        string
	experiment  string
	version     string
	cron        string
	every       time.Duration
	start, end  string
	concurrency int64
	noCatchup   bool
	disabled    bool
}

func (a *app) scheduleCommand() *cobra.Command {
	opts := &scheduleOptions{}
	cmd := &cobra.Command{
		Use:   "schedule FILE | PIPELINE",
		Short: "Run a pipeline again and again, by a cron expression or at an interval",
		Long: "Run a pipeline again and again: one from a file, as \"skiff run\" takes it, or one that was\n" +
			"uploaded, by its name. Without --version an uploaded one runs in the version that is\n" +
			"newest at the time of each run.\n\n" +
			"Cron expressions have six fields (second minute hour day month weekday), in UTC, or\n" +
			"are @hourly, @daily, @weekly, @monthly, @yearly. Times that were missed are made up\n" +
			"for, one after another, unless --no-catchup leaves all but the newest out.\n\n" +
			"In text given with -p, [[ScheduledTime]], [[CurrentTime]], [[Index]] and [[RunUUID]] stand\n" +
			"for what they are at each run; the times also as in [[ScheduledTime.2006-01-02]].\n\n" +
			"Where no daemon is up, one is started in the background, which stays as long as a\n" +
			"schedule has times to come.",
		Example: "  skiff schedule pipeline.yaml --cron '0 0 2 * * *' -p 'day=[[ScheduledTime.2006-01-02]]'\n" +
			"  skiff schedule train --every 1h --max-concurrency 2 --no-catchup\n" +
			"  skiff get recurringruns\n" +
			"  skiff disable train",
		Args: cobra.ExactArgs(1),
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return withPrefix(a.names(cmd.Context(), "pipelines"), typed), cobra.ShellCompDirectiveDefault // files, too
	}
	opts.out = outputFlag(cmd)
	opts.register(cmd)
	opts.registerSpec(cmd, skiff.DefaultMaxConcurrency)
	cmd.Flags().BoolVar(&opts.disabled, "disabled", false, "make no run until it is enabled")
	cmd.Flags().StringVar(&opts.python, "python", "", "interpreter that compiles a Python file; default is that of VIRTUAL_ENV, else python3")
	cmd.AddCommand(a.scheduleEditCommand())
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.schedule(cmd, args[0], opts) }
	return cmd
}

// registerSpec are the flags that say what a recurring run is; concurrency is what
// --max-concurrency is where it is left out.
func (o *scheduleOptions) registerSpec(cmd *cobra.Command, concurrency int64) {
	flags := cmd.Flags()
	flags.StringVar(&o.cron, "cron", "", "six fields, seconds first, as in '0 30 9 * * MON-FRI'; UTC")
	flags.DurationVar(&o.every, "every", 0, "the time between two runs, as in 90s, 1h30m")
	flags.StringVar(&o.start, "start", "", "no run before this time, as in 2026-03-01T09:00:00Z; one in the past is made up for")
	flags.StringVar(&o.end, "end", "", "no run after this time")
	flags.Int64Var(&o.concurrency, "max-concurrency", concurrency, "most runs of it that are active at once, 1 to 10")
	flags.BoolVar(&o.noCatchup, "no-catchup", false, "leave out the times that were missed, save the newest")
	flags.StringVar(&o.version, "version", "", "version of an uploaded pipeline; the newest at each run if left out")
	flags.StringArrayVarP(&o.params, "param", "p", nil, "a pipeline input, NAME=VALUE; may be given again")
	flags.StringVarP(&o.paramsFile, "params-file", "f", "", "YAML or JSON file of pipeline inputs")
	flags.StringVar(&o.name, "name", "", "display name; the pipeline's name if left out")
	flags.StringVar(&o.description, "description", "", "what it is for")
	flags.StringVar(&o.root, "pipeline-root", "", "where artifacts go, in place of the pipeline's own root")
	flags.StringVar(&o.experiment, "experiment", "", "the experiment that the runs belong to, by name or id; made where there is none")
}

// trigger is the schedule as the API takes it.
func (o *scheduleOptions) trigger() (map[string]json.RawMessage, error) {
	if (o.cron == "") == (o.every == 0) {
		return nil, errors.New("want either --cron or --every, as in --cron '0 0 2 * * *' or --every 1h")
	}
	kind, fields := "cron_schedule", map[string]any{"cron": o.cron}
	if o.every != 0 {
		if o.every < time.Second || o.every%time.Second != 0 {
			return nil, fmt.Errorf("--every %s: want whole seconds, at least one", o.every)
		}
		kind, fields = "periodic_schedule", map[string]any{"interval_second": fmt.Sprint(int64(o.every / time.Second))}
	}
	for _, bound := range []struct{ flag, field, text string }{{"--start", "start_time", o.start}, {"--end", "end_time", o.end}} {
		if bound.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, bound.text)
		if err != nil {
			return nil, fmt.Errorf("%s %q: want a time as in %s", bound.flag, bound.text, time.Now().UTC().Format(time.RFC3339))
		}
		fields[bound.field] = at
	}
	data, err := json.Marshal(fields)
	return map[string]json.RawMessage{kind: data}, err
}

func (a *app) schedule(cmd *cobra.Command, what string, opts *scheduleOptions) error {
	ctx := cmd.Context()
	message := &client.RecurringRun{
		DisplayName: opts.name, Description: opts.description, MaxConcurrency: opts.concurrency, NoCatchup: opts.noCatchup, Mode: "ENABLE",
		RuntimeConfig: client.RuntimeConfig{PipelineRoot: opts.root},
	}
	if opts.disabled {
		message.Mode = "DISABLE"
	}
	var err error
	if message.Trigger, err = opts.trigger(); err != nil {
		return refuse(err)
	}
	file := isFile(what)
	var pkg *kfp.Package
	if file {
		if opts.version != "" {
			return refuse(fmt.Errorf("--version: %s is a file; versions are of pipelines that \"skiff pipeline upload\" keeps", what))
		}
		if pkg, err = a.scheduledFile(ctx, what, opts.python, message); err != nil {
			return refuse(err)
		}
	}
	cfg, err := opts.config(a)
	if err != nil {
		return err
	}
	session, err := a.connect(ctx, cfg, true)
	if err != nil {
		return err
	}
	defer session.close()
	if err := session.checkFlags(cmd, &opts.daemonFlags); err != nil {
		return refuse(err)
	}
	if !file {
		if pkg, err = a.scheduledPipeline(ctx, session.client, what, opts.version, message); err != nil {
			return err
		}
	}
	if message.RuntimeConfig.Parameters, err = typed(pkg, opts.params, opts.paramsFile); err != nil {
		return refuse(err)
	}
	if message.DisplayName == "" {
		message.DisplayName = pkg.Spec.PipelineInfo.Name
	}
	experiment := opts.experiment
	if experiment == "" {
		experiment = skiff.DefaultExperimentName
	}
	if message.ExperimentID, err = a.experimentID(ctx, session.client, experiment); err != nil {
		return err
	}
	id, err := session.client.MakeRecurringRun(ctx, message)
	if client.Invalid(err) {
		return refuse(err)
	}
	if err != nil {
		return err
	}
	return a.printScheduled(ctx, session, id, "made", *opts.out)
}

// printScheduled shows a recurring run that was made or changed, which done says.
func (a *app) printScheduled(ctx context.Context, s *session, id, done string, out format) error {
	found, err := recurringRun(ctx, s.client, a.namespace, id)
	if err != nil {
		return err
	}
	if !out.people() {
		return a.printDocument(out, found)
	}
	when := "it is disabled"
	switch next := found.Next(); {
	case found.Spec.Disabled:
	case next.IsZero():
		when = "it has no time to come"
	case !next.After(time.Now()):
		when = "the first run is due"
	default:
		when = "the next run is at " + next.Format(time.RFC3339)
	}
	if s.peerEmbedded {
		a.notef("skiff: the daemon is one inside a \"skiff run\"; when that ends, one in the background goes on")
	}
	_, err = fmt.Fprintf(a.Out, "recurring run %s (%s) is %s; %s\n", found.Spec.DisplayName, found.Name, done, when)
	return err
}

// isFile reports whether an argument is a file and not the name of a pipeline.
func isFile(what string) bool {
	if _, _, python := author.Split(what); python || what == "-" || strings.ContainsRune(what, filepath.Separator) {
		return true
	}
	if slices.Contains([]string{".yaml", ".yml", ".json", ".zip", ".gz"}, filepath.Ext(what)) {
		return true
	}
	info, err := os.Stat(what)
	return err == nil && info.Mode().IsRegular()
}

// scheduledFile puts the pipeline of a file into the message.
func (a *app) scheduledFile(ctx context.Context, file, python string, message *client.RecurringRun) (*kfp.Package, error) {
	data, err := a.readPackage(ctx, file, python)
	if err != nil {
		return nil, err
	}
	pkg, err := kfp.Load(filepath.Base(file), data, kfp.Limits{})
	if err != nil {
		return nil, err
	}
	spec, platform, err := pkg.Canonical()
	if err != nil {
		return nil, err
	}
	message.PipelineSpec = spec
	if len(platform) > 0 {
		message.PipelineSpec, err = json.Marshal(map[string]json.RawMessage{"pipeline_spec": spec, "platform_spec": platform})
	}
	return pkg, err
}

// scheduledPipeline puts a kept pipeline into the message.
func (a *app) scheduledPipeline(ctx context.Context, c *client.Client, name, version string, message *client.RecurringRun) (*kfp.Package, error) {
	var p kfp.Pipeline
	err := c.Get(ctx, mustKind("pipelines"), a.namespace, name, &p)
	if client.NotFound(err) {
		return nil, refuse(fmt.Errorf("%s is neither a file nor a pipeline that is kept; \"skiff get pipelines\" lists those", name))
	}
	if err != nil {
		return nil, err
	}
	v, err := c.NamedVersion(ctx, p.UID, version)
	if err != nil {
		return nil, err
	}
	if v == nil && version != "" {
		return nil, refuse(fmt.Errorf("pipeline %s has no version %s; \"skiff get pipelineversions\" lists those there are", name, version))
	}
	if v == nil {
		return nil, refuse(fmt.Errorf("pipeline %s has no version; upload one with \"skiff pipeline upload FILE --pipeline %s\"", name, name))
	}
	message.PipelineVersion = &client.PipelineVersionReference{PipelineID: p.UID}
	if version != "" {
		message.PipelineVersion.VersionID = v.ID
	}
	return kfp.Load(name, v.Spec, kfp.Limits{})
}

// typed reads the inputs of a pipeline by their declared types. What holds a
// placeholder is text until there is a run, and what is not declared is refused
// by the daemon, with the rest that is wrong.
func typed(pkg *kfp.Package, params []string, file string) (map[string]json.RawMessage, error) {
	values := map[string]json.RawMessage{}
	if file != "" {
		var err error
		if values, err = readParams(file); err != nil {
			return nil, err
		}
	}
	arguments, err := arguments(params)
	if err != nil {
		return nil, err
	}
	for name, text := range arguments {
		var value any = text
		def := pkg.Spec.Root.InputDefinitions.Parameters[name]
		if def != nil && !skiff.HasMacro(text) {
			if value, err = kfp.ParseArgument(def.Type(), text); err != nil {
				return nil, fmt.Errorf("-p %s: %w", name, err)
			}
		}
		if values[name], err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("-p %s: %w", name, err)
		}
	}
	return values, nil
}

// recurringRun finds a recurring run by its id, or by its display name where only
// one has it.
func recurringRun(ctx context.Context, c *client.Client, namespace, name string) (*skiff.RecurringRun, error) {
	found := &skiff.RecurringRun{}
	err := c.Get(ctx, mustKind("recurringruns"), namespace, name, found)
	if !client.NotFound(err) {
		return found, err
	}
	unknown := err
	var ids []string
	for list := (client.ListOptions{Namespace: namespace}); ; {
		page, err := c.List(ctx, mustKind("recurringruns"), list)
		if err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			r := &skiff.RecurringRun{}
			if err := decode(item, r); err != nil {
				return nil, err
			}
			if r.Spec.DisplayName == name {
				found = r
				ids = append(ids, r.Name)
			}
		}
		if list.Continue = page.Metadata.Continue; list.Continue == "" {
			break
		}
	}
	switch len(ids) {
	case 0:
		return nil, unknown
	case 1:
		return found, nil
	}
	return nil, fmt.Errorf("%d recurring runs are called %q; say which by its id: %s", len(ids), name, sample(ids))
}

func (a *app) recurringActionCommand(action string) *cobra.Command {
	shorts := map[string]string{
		enable:  "Let recurring runs make runs again",
		disable: "Keep recurring runs from making runs",
	}
	cmd := &cobra.Command{
		Use:               action + " RECURRINGRUN...",
		Short:             shorts[action],
		Long:              shorts[action] + ". RECURRINGRUN is an id, or a display\nname that only one has. Runs that are active go on. The times that pass while one is\ndisabled are made up for when it is enabled, or with --no-catchup the newest of them.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeRecurring,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		return a.onEach(ctx, args, "is "+action+"d", "recurring run", func(c *client.Client, name string) error {
			found, err := recurringRun(ctx, c, a.namespace, name)
			if err != nil {
				return err
			}
			return c.Act(ctx, "recurringruns", found.Name, action)
		})
	}
	return cmd
}

func (a *app) triggerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trigger RECURRINGRUN",
		Short: "Make a run of a recurring run at once",
		Long: "Make a run of a recurring run at once, whether it is enabled or not; its schedule goes on\n" +
			"as before. RECURRINGRUN is an id, or a display name that only one has. The run's id is\n" +
			"printed.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeRecurring,
	}
	out := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		found, err := recurringRun(cmd.Context(), c, a.namespace, args[0])
		if err != nil {
			return err
		}
		made, err := c.Trigger(cmd.Context(), found.Name)
		if client.Invalid(err) {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		return a.printDetached(*out, made.ID)
	}
	return cmd
}

// completeRecurring offers ids, with the display names beside them.
func (a *app) completeRecurring(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	c, err := a.client()
	if err != nil {
		return nil, none
	}
	list, err := c.List(cmd.Context(), mustKind("recurringruns"), client.ListOptions{Namespace: a.namespace, Limit: completionLimit})
	if err != nil {
		return nil, none
	}
	var names []string
	for _, item := range list.Items {
		var r skiff.RecurringRun
		if decode(item, &r) == nil {
			names = append(names, r.Name+"\t"+printable(r.Spec.DisplayName))
		}
	}
	return withPrefix(names, typed), none
}

// describedRuns is how many of its newest runs a description shows.
const describedRuns = 10

func (a *app) describeRecurring(ctx context.Context, c *client.Client, r *skiff.RecurringRun) error {
	state, next := "enabled", stamped(r.Next())
	if r.Spec.Disabled {
		state, next = "disabled", ""
	}
	when := r.Spec.Schedule.Cron
	if when == "" {
		when = "every " + (time.Duration(r.Spec.Schedule.IntervalSeconds) * time.Second).String()
	}
	pipeline, version := "as handed in", ""
	if v := r.Spec.PipelineVersion; v != nil {
		if pipeline, version = v.PipelineID, v.VersionID; version == "" {
			version = "the newest at each run"
		}
	}
	missed := "made up for"
	if r.Spec.NoCatchup {
		missed = "left out, save the newest"
	}
	err := fields(a.Out, "Recurring run", r.Name, "Name", r.Spec.DisplayName, "Namespace", r.Namespace, "Description", r.Spec.Description,
		"State", state, "Schedule", when, "Start", stamped(r.Spec.Schedule.StartTime), "End", stamped(r.Spec.Schedule.EndTime),
		"At once", fmt.Sprintf("at most %d", r.Spec.MaxConcurrency), "Missed times", missed, "Pipeline", pipeline, "Version", version,
		"Experiment", r.Spec.Experiment, "Pipeline root", r.Spec.PipelineRoot, "Created", stamped(r.CreationTimestamp),
		"Runs", fmt.Sprint(r.Status.Runs), "Last time", stamped(r.Status.LastScheduledAt), "Next time", next, "Message", r.Status.Message)
	if err != nil {
		return err
	}
	var rows [][]string
	for name, raw := range r.Spec.Parameters {
		rows = append(rows, []string{name, short(raw)})
	}
	slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
	if err := a.section([]string{"Parameter", "Value"}, rows); err != nil {
		return err
	}
	runs, err := c.RunsOf(ctx, r.Name, describedRuns)
	if err != nil {
		return err
	}
	rows = nil
	for _, run := range runs {
		rows = append(rows, []string{run.ID, run.DisplayName, stamped(run.ScheduledAt), run.State})
	}
	if err := a.section([]string{"Newest runs", "Name", "Scheduled", "State"}, rows); err != nil {
		return err
	}
	rows = nil
	for _, e := range r.Status.Events {
		rows = append(rows, []string{stamped(e.Last), fmt.Sprint(e.Count), e.Reason, e.Message})
	}
	return a.section([]string{"Last", "Times", "Event", "Message"}, rows)
}

// stamped is a time of a schedule: in UTC, as schedules are.
func stamped(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339)
}
