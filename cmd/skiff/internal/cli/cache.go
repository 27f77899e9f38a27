package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// noCache is the flag --no-cache: by itself it means every step, with a value
// those that it names.
type noCache struct {
	all   bool
	tasks []string
}

// String implements pflag.Value.
func (n *noCache) String() string {
	if len(n.tasks) > 0 {
		return strings.Join(n.tasks, ",")
	}
	return strconv.FormatBool(n.all)
}

// Set implements pflag.Value.
func (n *noCache) Set(text string) error {
	if all, err := strconv.ParseBool(text); err == nil {
		n.all = all
		return nil
	}
	for task := range strings.SplitSeq(text, ",") {
		if task == "" {
			return fmt.Errorf("%q: want TASK[,TASK…]", text)
		}
		n.tasks = append(n.tasks, task)
	}
	return nil
}

// Type implements pflag.Value.
func (n *noCache) Type() string { return "tasks" }

// registerCache declares the flags that say which earlier results are taken.
func (o *runOptions) registerCache(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(&o.noCache, "no-cache", "run every step anew; with =TASK[,TASK] those alone, with all that is inside of them")
	flags.Lookup("no-cache").NoOptDefVal = "true"
	flags.StringArrayVar(&o.cache, "cache", nil, "TASK=off, TASK=on or TASK=AGE: whether a task takes earlier results, and how old they may be; may be given again")
	flags.StringVar(&o.cacheMaxAge, "cache-max-age", "", "how old an earlier result may be to be taken, as in 720h or 30d")
}

// cacheTasks is what the flags say of single tasks.
func (o *runOptions) cacheTasks() (map[string]string, error) {
	words := map[string]string{}
	for _, task := range o.noCache.tasks {
		words[task] = "off"
	}
	for _, text := range o.cache {
		task, word, ok := strings.Cut(text, "=")
		if !ok || task == "" || word == "" {
			return nil, fmt.Errorf("--cache %s: want TASK=off, TASK=on or TASK=AGE", text)
		}
		if _, twice := words[task]; twice {
			return nil, fmt.Errorf("--cache %s: %s is named twice", text, task)
		}
		words[task] = word
	}
	return words, nil
}
