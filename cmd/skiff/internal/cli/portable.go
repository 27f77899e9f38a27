package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store/artifact"
)

func (a *app) exportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write a pipeline or a run to a file that another skiff imports",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.exportKindCommand("pipelines", "pipeline NAME", "Export a pipeline with its versions, and its runs where asked"),
		a.exportKindCommand("runs", "run ID", "Export a run that has ended, with its tasks and their results"))
	return cmd
}

func (a *app) exportKindCommand(plural, use, short string) *cobra.Command {
	var file string
	var runs, artifacts, images, compress bool
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Long: short + ".\n\n" +
			"The file is a .tar.gz, or a .tar where it is called so, whose first entry lists all\n" +
			"others with sizes and SHA-256 digests. Secrets are never in it; it says which are\n" +
			"needed.",
		Example:           "  skiff export " + use + " -o bundle.tar.gz --artifacts",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete(plural),
	}
	flags := cmd.Flags()
	flags.StringVarP(&file, "output", "o", "", "the file to write; - is the output; NAME.tar.gz if left out")
	if plural == "pipelines" {
		flags.BoolVar(&runs, "runs", false, "with its runs that have ended")
	}
	flags.BoolVar(&artifacts, "artifacts", false, "with the contents of the runs' artifacts")
	flags.BoolVar(&images, "images", false, "with the container images (Docker only)")
	flags.BoolVar(&compress, "compress", false, "squeeze contents that shrink: smaller, and slower than the disk")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "" {
			file = args[0] + ".tar.gz"
		}
		query := url.Values{}
		for name, set := range map[string]bool{"runs": runs, "artifacts": artifacts, "images": images} {
			if set {
				query.Set(name, "true")
			}
		}
		switch {
		case strings.HasSuffix(file, ".tar") && compress:
			return refuse(fmt.Errorf("--compress: %s is called .tar, which is not compressed; call it .tar.gz", file))
		case strings.HasSuffix(file, ".tar"):
			query.Set("compression", "none")
		case compress:
			query.Set("compression", "squeezed")
		}
		c, done, err := a.reader(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		return a.export(cmd.Context(), c, plural, args[0], query, file)
	}
	return cmd
}

func (a *app) export(ctx context.Context, c *client.Client, plural, name string, query url.Values, file string) error {
	if file == "-" {
		return a.download(ctx, c, plural, name, query, a.Out)
	}
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return refuse(fmt.Errorf("%s is there already; give a new name with -o", file))
	}
	temp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+"-*")
	if err != nil {
		return refuse(fmt.Errorf("write the bundle: %w", err))
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	if c.Hands() {
		err = a.exportTo(ctx, c, plural, name, query, temp)
	} else {
		err = artifact.WriteFile(temp, func(w io.Writer) error { return a.download(ctx, c, plural, name, query, w) })
	}
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		// What is not whole never appears under the name asked for.
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	a.notef("%s written; \"skiff import %s\" takes it in", file, filepath.Base(file))
	return nil
}

// exportTo has the daemon write a bundle to a file.
func (a *app) exportTo(ctx context.Context, c *client.Client, plural, name string, query url.Values, file *os.File) error {
	meter := a.newFileMeter("exporting", file)
	defer meter.end()
	err := c.ExportTo(ctx, a.namespace, plural, name, query, file, meter.total.Store)
	if client.Invalid(err) {
		return refuse(err)
	}
	return err
}

// download copies a bundle to w.
func (a *app) download(ctx context.Context, c *client.Client, plural, name string, query url.Values, w io.Writer) (err error) {
	meter := a.newMeter("exporting")
	defer meter.end()
	body, size, err := c.Export(ctx, a.namespace, plural, name, query)
	if client.Invalid(err) {
		return refuse(err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	meter.total.Store(size)
	_, err = io.Copy(w, meter.reader(body))
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("the export broke off, nothing is kept: %w; the daemon's log says why", err)
	}
	return err
}

func (a *app) importCommand() *cobra.Command {
	var as string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take in what skiff export wrote, or a compiled pipeline",
		Long: "Take in what skiff export wrote, or a compiled pipeline of Kubeflow's (.yaml, .zip,\n" +
			".tar.gz); \"-\" reads the input.\n\n" +
			"The whole bundle is checked before anything of it is seen: it is all taken, or not at\n" +
			"all. What is here already stays as it is. Nothing is run; \"skiff reproduce RUN\" runs\n" +
			"an imported run again and compares.",
		Example: "  skiff import bundle.tar.gz --dry-run\n  skiff import pipeline.yaml --as train",
		Args:    cobra.ExactArgs(1),
	}
	out := outputFlag(cmd)
	cmd.Flags().StringVar(&as, "as", "", "another name for the pipeline")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only check the bundle, and say what it would bring")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{}
		if as != "" {
			query.Set("as", as)
		}
		if dryRun {
			query.Set("dryRun", "All")
		}
		in, size := a.In, int64(-1)
		var file *os.File
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return refuse(fmt.Errorf("read the bundle: %w", err))
			}
			defer func() { _ = f.Close() }()
			info, err := f.Stat()
			if err != nil || !info.Mode().IsRegular() {
				return refuse(errors.Join(fmt.Errorf("read the bundle: %s is not a file", args[0]), err))
			}
			file, in, size = f, artifact.Ahead(f), info.Size()
			query.Set("filename", filepath.Base(args[0]))
		}
		c, done, err := a.writer(cmd.Context())
		if err != nil {
			return err
		}
		defer done()
		var report *server.ImportReport
		if file != nil && c.Hands() {
			report, err = a.importFrom(cmd.Context(), c, query, file, size)
		} else {
			report, err = a.upload(cmd.Context(), c, query, in, size)
		}
		if client.Invalid(err) {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		if !out.people() {
			return a.printDocument(*out, report)
		}
		return a.printReport(report)
	}
	return cmd
}

// importFrom has the daemon read a bundle from a file.
func (a *app) importFrom(ctx context.Context, c *client.Client, query url.Values, file *os.File, size int64) (*server.ImportReport, error) {
	meter := a.newFileMeter("importing", file)
	defer meter.end()
	meter.total.Store(size)
	return c.ImportFrom(ctx, a.namespace, query, file)
}

func (a *app) upload(ctx context.Context, c *client.Client, query url.Values, in io.Reader, size int64) (*server.ImportReport, error) {
	meter := a.newMeter("importing")
	defer meter.end()
	meter.total.Store(max(0, size))
	return c.Import(ctx, a.namespace, query, meter.reader(in), size)
}

func (a *app) printReport(r *server.ImportReport) error {
	verb := "imported"
	if r.DryRun {
		verb = "would be imported"
	}
	var err error
	say := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(a.Out, format+"\n", args...)
		}
	}
	for _, name := range r.Created {
		say("%s %s", printable(name), verb)
	}
	for _, name := range r.Present {
		say("%s is here already", printable(name))
	}
	if r.Artifacts > 0 {
		say("contents of %d artifacts %s", r.Artifacts, verb)
	}
	if r.Images > 0 {
		say("%d images %s", r.Images, verb)
	}
	for _, need := range r.Missing {
		a.notef("missing: %s", needText(need))
	}
	return err
}

// needText says what is missing and how to make it.
func needText(need bundle.Need) string {
	name := printable(need.Name)
	keys := make([]string, 0, len(need.Keys))
	for _, key := range need.Keys {
		keys = append(keys, " --from-file "+printable(key)+"=FILE")
	}
	switch need.Kind {
	case "Secret":
		return "secret " + name + "; make it with: skiff secret create " + name + strings.Join(keys, "")
	case "ConfigMap":
		return "config map " + name + "; make it with: skiff configmap create " + name + strings.Join(keys, "")
	default:
		return "volume claim " + name + "; make it with: skiff pvc create " + name + " --size SIZE"
	}
}

func (a *app) reproduceCommand() *cobra.Command {
	var opts daemonFlags
	var anyImage, follow bool
	cmd := &cobra.Command{
		Use:   "reproduce RUN",
		Short: "Run a run again, as it was, and compare the results bit for bit",
		Long: "Run a run again that has ended, here or elsewhere: the same compiled pipeline, the same\n" +
			"parameters, images of the recorded digests, no cached result. Then compare each task's\n" +
			"state, output parameters, and the contents and metadata of its artifacts.\n\n" +
			"Exit codes: 0 everything is identical, 1 something differs, 2 it was refused before\n" +
			"anything started, 130 it was cancelled.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.complete("runs"),
	}
	out := outputFlag(cmd)
	opts.register(cmd)
	cmd.Flags().BoolVar(&anyImage, "any-image", false, "take images as their names are now, whatever their digests")
	cmd.Flags().BoolVar(&follow, "follow", false, "show the progress of every step")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := opts.config(a)
		if err != nil {
			return err
		}
		session, err := a.connect(cmd.Context(), cfg, false)
		if err != nil {
			return err
		}
		defer session.close()
		if err := session.checkFlags(cmd, &opts); err != nil {
			return refuse(err)
		}
		run, err := session.client.Reproduce(cmd.Context(), a.namespace, args[0], anyImage)
		if client.Invalid(err) || client.NotFound(err) {
			return refuse(err)
		}
		if err != nil {
			return err
		}
		a.notef("run %s started", run.Name)
		document, err := a.await(cmd.Context(), session, run.Namespace, run.Name, follow)
		if err != nil {
			return err
		}
		comparison, err := session.client.Reproduction(cmd.Context(), run.Namespace, run.Name)
		if err != nil {
			return err
		}
		return a.finishReproduction(*out, document, comparison)
	}
	return cmd
}

// finishReproduction prints the comparison and turns it into the exit code.
func (a *app) finishReproduction(out format, run *view.Run, r *view.Reproduction) error {
	var err error
	if out.people() {
		err = a.printReproduction(r)
		a.explainFailures(run)
	} else {
		err = a.printDocument(out, r)
	}
	switch {
	case err != nil:
		return err
	case r.Identical:
		return nil
	case r.State == skiff.StateCanceled:
		return &exitError{code: exitCancelled}
	default:
		return &exitError{code: exitFailed}
	}
}

func (a *app) printReproduction(r *view.Reproduction) error {
	rows := [][]string{}
	add := func(name string, differences []view.Difference) {
		if len(differences) == 0 {
			rows = append(rows, []string{name, "identical", ""})
		}
		for i := range differences {
			rows = append(rows, []string{name, "differs", differences[i].Text()})
		}
	}
	for _, task := range r.Tasks {
		add(task.Name, task.Differences)
	}
	add("(the run)", r.Differences)
	if err := printRows(a.Out, []string{"Task", "Result", "Difference"}, rows); err != nil {
		return err
	}
	word := "identical to"
	if !r.Identical {
		word = "not identical to"
	}
	_, err := fmt.Fprintf(a.Out, "\nrun %s is %s run %s\n", r.Reproduced, word, r.Original)
	return err
}
