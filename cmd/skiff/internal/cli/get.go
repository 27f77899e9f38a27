package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/view"
)

// listLimit keeps a list on a screen or two and a run list of years quick; the
// rest is told of, and had with --limit.
const listLimit = 100

func decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// getOptions are the flags of get.
type getOptions struct {
	out    *format
	run    string
	labels string
	limit  int
	all    bool
	// recurring is the recurring run whose runs are shown, by name or id.
	recurring string

	selection selectionOptions
}

func (a *app) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "get",
		Short: "Show runs, tasks, pods, artifacts, secrets or config maps",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for plural, short := range map[string]string{ //nolint:gosec // Help texts; none is a credential.
		"runs":                   "Show runs, newest first, or one run with its tasks, outputs and metrics",
		"tasks":                  "Show tasks, or one task (RUN/TASK)",
		"pods":                   "Show pods",
		"artifacts":              "Show artifacts",
		"secrets":                "Show secrets: their names, types and keys, never their values",
		"configmaps":             "Show config maps",
		"persistentvolumeclaims": "Show volume claims",
		"experiments":            "Show experiments",
		"recurringruns":          "Show recurring runs",
		"pipelines":              "Show uploaded pipelines",
		"pipelineversions":       "Show versions of uploaded pipelines",
	} {
		cmd.AddCommand(a.getKindCommand(plural, short))
	}
	return cmd
}

func (a *app) getKindCommand(plural, short string) *cobra.Command {
	singular := strings.TrimSuffix(plural, "s")
	cmd := &cobra.Command{
		Use:               plural + " [ID]",
		Aliases:           append([]string{singular}, kindAliases()[plural]...),
		Short:             short,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.complete(plural),
	}
	opts := &getOptions{out: outputFlag(cmd)}
	cmd.Flags().IntVar(&opts.limit, "limit", listLimit, "most objects to show; 0 for all")
	cmd.Flags().StringVarP(&opts.labels, "selector", "l", "", "label selector, as in key=value,other!=value")
	cmd.Flags().BoolVarP(&opts.all, "all-namespaces", "A", false, "in all namespaces")
	if plural == "tasks" || plural == "artifacts" || plural == "pods" {
		cmd.Flags().StringVar(&opts.run, "run", "", "only those of this run")
	}
	if plural == "runs" {
		opts.selection.register(cmd)
		cmd.Flags().StringVar(&opts.recurring, "recurring", "", "only those of this recurring run, by its name or id")
		_ = cmd.RegisterFlagCompletionFunc("recurring", a.completeRecurring)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := opts.selection.parse(); err != nil {
			return err
		}
		c, done, err := a.reader(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		if len(args) == 1 {
			return a.getOne(cmd.Context(), c, plural, args[0], opts)
		}
		return a.getList(cmd.Context(), c, plural, opts)
	}
	return cmd
}

// kindAliases are the short names that users of kubectl type.
func kindAliases() map[string][]string {
	return map[string][]string{"pods": {"po"}, "persistentvolumeclaims": {"pvc"}, "configmaps": {"cm"}, "recurringruns": {"schedules", "schedule"}}
}

func (a *app) getOne(ctx context.Context, c *client.Client, plural, name string, opts *getOptions) error {
	if plural == "runs" {
		run, err := c.Run(ctx, a.namespace, name)
		if err != nil {
			return err
		}
		if !opts.out.people() {
			return a.printDocument(*opts.out, run)
		}
		return a.printRun(run)
	}
	if run, task, nested := strings.Cut(name, "/"); nested && plural == "tasks" {
		document, err := c.Run(ctx, a.namespace, run)
		if err != nil {
			return err
		}
		found, err := findTask(document, task)
		if err != nil {
			return err
		}
		name = found.ID
	}
	if plural == "recurringruns" {
		found, err := recurringRun(ctx, c, a.namespace, name)
		if err != nil {
			return err
		}
		name = found.Name
	}
	kind := mustKind(plural)
	if opts.out.people() {
		table, err := c.Table(ctx, kind, name, client.ListOptions{Namespace: a.namespace})
		if err != nil {
			return err
		}
		return a.printTable(*opts.out, table, false)
	}
	var object json.RawMessage
	if err := c.Get(ctx, kind, a.namespace, name, &object); err != nil {
		return err
	}
	shown, err := showable(plural, object)
	if err != nil {
		return err
	}
	return a.printDocument(*opts.out, shown)
}

func (a *app) getList(ctx context.Context, c *client.Client, plural string, opts *getOptions) error {
	kind := mustKind(plural)
	list := client.ListOptions{Namespace: a.namespace, Labels: opts.labels, Limit: opts.limit}
	if opts.all {
		list.Namespace = ""
	}
	if opts.recurring != "" {
		found, err := recurringRun(ctx, c, a.namespace, opts.recurring)
		if err != nil {
			return err
		}
		list.Fields = "spec.recurringRun=" + found.Name
	}
	switch {
	case opts.selection.given():
		return a.selectRuns(ctx, c, list, opts)
	case opts.run != "" && plural == "pods":
		list.Labels = strings.Trim(list.Labels+",skiff.dev/run="+opts.run, ",")
	case opts.run != "":
		list.Fields = "spec.run=" + opts.run
	}
	if opts.out.people() {
		return a.listTable(ctx, c, kind, plural, list, opts)
	}
	items := []json.RawMessage{}
	for {
		page, err := c.List(ctx, kind, list)
		if err != nil {
			return err
		}
		for _, item := range page.Items {
			shown, err := showable(plural, item)
			if err != nil {
				return err
			}
			items = append(items, shown)
		}
		if !a.more(&list, page.Metadata.Continue, len(items), opts.limit, plural) {
			break
		}
	}
	if plural == "runs" {
		documents, err := runDocuments(ctx, c, items)
		if err != nil {
			return err
		}
		return a.printDocument(*opts.out, map[string]any{"items": documents})
	}
	return a.printDocument(*opts.out, map[string]any{"items": items})
}

// showable is an object as it may be printed: of a secret no value is.
func showable(plural string, object json.RawMessage) (json.RawMessage, error) {
	if plural != "secrets" {
		return object, nil
	}
	secret := &core.Secret{}
	if err := decode(object, secret); err != nil {
		return nil, err
	}
	shown, err := json.Marshal(secret.Redacted())
	if err != nil {
		return nil, fmt.Errorf("encode the output: %w", err)
	}
	return shown, nil
}

// more prepares the next page, or says that there is one that was not asked for.
func (a *app) more(list *client.ListOptions, token string, have, limit int, plural string) bool {
	if token == "" {
		return false
	}
	if limit > 0 && have >= limit {
		a.notef("there are more %s; --limit 0 shows all", plural)
		return false
	}
	list.Continue = token
	if limit > 0 {
		list.Limit = limit - have
	}
	return true
}

func runDocuments(ctx context.Context, c *client.Client, items []json.RawMessage) ([]*view.Run, error) {
	documents := make([]*view.Run, 0, len(items))
	for _, item := range items {
		var object struct {
			Metadata struct{ Name, Namespace string } `json:"metadata"`
		}
		if err := decode(item, &object); err != nil {
			return nil, err
		}
		document, err := c.Run(ctx, object.Metadata.Namespace, object.Metadata.Name)
		if client.NotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		documents = append(documents, document)
	}
	return documents, nil
}

func (a *app) listTable(ctx context.Context, c *client.Client, kind client.Kind, plural string, list client.ListOptions, opts *getOptions) error {
	var whole *kube.Table
	for {
		page, err := c.Table(ctx, kind, "", list)
		if err != nil {
			return err
		}
		if whole == nil {
			whole = page
		} else {
			whole.Rows = append(whole.Rows, page.Rows...)
		}
		if !a.more(&list, page.Metadata.Continue, len(whole.Rows), opts.limit, plural) {
			break
		}
	}
	if len(whole.Rows) == 0 {
		a.notef("no %s", plural)
		return nil
	}
	return a.printTable(*opts.out, whole, opts.all)
}

// printTable writes the server's rows; namespaces come first where rows are of
// several.
func (a *app) printTable(f format, table *kube.Table, namespaces bool) error {
	var headings []string
	if namespaces {
		headings = append(headings, "Namespace")
	}
	shown := make([]int, 0, len(table.ColumnDefinitions))
	for i, column := range table.ColumnDefinitions {
		if column.Priority == 0 || f == formatWide {
			headings = append(headings, column.Name)
			shown = append(shown, i)
		}
	}
	rows := make([][]string, 0, len(table.Rows))
	for _, row := range table.Rows {
		var cells []string
		if namespaces {
			var object struct {
				Metadata struct{ Namespace string } `json:"metadata"`
			}
			if err := decode(row.Object, &object); err != nil {
				return err
			}
			cells = append(cells, object.Metadata.Namespace)
		}
		for _, i := range shown {
			if i < len(row.Cells) && row.Cells[i] != nil {
				cells = append(cells, fmt.Sprint(row.Cells[i]))
			} else {
				cells = append(cells, "")
			}
		}
		rows = append(rows, cells)
	}
	return printRows(a.Out, headings, rows)
}
