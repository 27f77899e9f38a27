package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// The values of -o.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// format is the value of -o.
type format string

// String, Set and Type implement the flag's interface.
func (f *format) String() string { return string(*f) }

// Set implements pflag.Value.
func (f *format) Set(text string) error {
	switch text {
	case formatTable, formatWide, formatJSON, formatYAML:
		*f = format(text)
		return nil
	}
	return fmt.Errorf("want %s, %s, %s or %s", formatTable, formatWide, formatJSON, formatYAML)
}

// Type implements pflag.Value.
func (f *format) Type() string { return "format" }

// people reports whether the output is made for reading.
func (f format) people() bool { return f == formatTable || f == formatWide }

// outputFlag adds -o to a command.
func outputFlag(cmd *cobra.Command) *format {
	f := format(formatTable)
	cmd.Flags().VarP(&f, "output", "o", "table, wide, json or yaml")
	_ = cmd.RegisterFlagCompletionFunc("output", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{formatTable, formatWide, formatJSON, formatYAML}, cobra.ShellCompDirectiveNoFileComp
	})
	return &f
}

// printDocument writes one value as JSON or YAML.
func (a *app) printDocument(f format, value any) error {
	body, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	if f == formatYAML {
		if body, err = yaml.JSONToYAML(body); err != nil {
			return fmt.Errorf("encode the output: %w", err)
		}
		_, err = a.Out.Write(body)
		return err
	}
	_, err = fmt.Fprintf(a.Out, "%s\n", body)
	return err
}

// printRows writes aligned columns under headings in capitals.
func printRows(w io.Writer, headings []string, rows [][]string) error {
	upper := make([]string, len(headings))
	for i, h := range headings {
		upper[i] = strings.ToUpper(h)
	}
	return printLines(w, append([][]string{upper}, rows...))
}

// printLines writes aligned columns.
func printLines(w io.Writer, lines [][]string) error {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	line := func(cells []string) {
		// A trailing cell is not padded, so lines have no blanks at their end.
		_, _ = fmt.Fprintln(table, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	for _, row := range lines {
		clean := make([]string, len(row))
		for i, cell := range row {
			clean[i] = printable(cell)
		}
		line(clean)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

// printable makes text that a step wrote safe to show on a terminal: no escape
// sequences, no line breaks, no characters that turn the direction of text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < 0x20 || (r >= 0x7f && r < 0xa0):
			return '?'
		case (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069):
			return '?'
		}
		return r
	}, text)
}

// terminal reports whether w is one.
func terminal(w io.Writer) (*os.File, bool) {
	file, ok := w.(*os.File)
	return file, ok && isatty.IsTerminal(file.Fd())
}
