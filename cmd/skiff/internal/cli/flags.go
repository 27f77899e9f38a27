package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/daemon"
)

// daemonFlags are the flags of a daemon, given to "skiff up" or to a "skiff run"
// that starts one.
type daemonFlags struct {
	runtime     string
	fakeGPUs    string
	fakeNode    string
	containerEn []string
	containerCA string
	warmSteps   int
	cacheExpiry string
	nodeLabels  []string
	sources     string
	retain      string
	cache       string
	reserve     string
	patience    time.Duration
	s3FromEnv   bool
}

func (f *daemonFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.runtime, "runtime", daemon.RuntimeAuto, "auto, docker or process; auto takes Docker where it answers")
	flags.StringVar(&f.fakeGPUs, "fake-gpus", "", "declare GPUs that do not exist: a machine's name such as dgx-a100, or a file")
	flags.StringVar(&f.fakeNode, "fake-node", "", "declare a larger machine, as in cpu=64,mem=256Gi")
	flags.StringArrayVar(&f.containerEn, "container-env", nil, "KEY=VALUE for every container (a proxy, pip's settings); KEY alone passes the daemon's own")
	flags.StringVar(&f.containerCA, "container-ca", "", "file of certificate authorities that every container shall trust")
	flags.IntVar(&f.warmSteps, "warm-steps", 0, "how many steps may have their container wait for their inputs; 0 is twice the CPUs, -1 none")
	flags.StringVar(&f.cacheExpiry, "cache-expiry", "", "how old an earlier result may be to be taken for a step, as in 720h or 30d; default is any age")
	flags.StringArrayVar(&f.nodeLabels, "node-label", nil, "KEY=VALUE, a label of this machine that node selectors are compared with")
	flags.StringVar(&f.sources, "pipeline-urls", daemon.SourcesOff, "off, public or any: from which addresses clients may have pipelines fetched, and pipelines import artifacts")
	flags.StringVar(&f.retain, "retain", "", "what to keep of artifacts, as in max-age=30d,max-runs=1000,max-bytes=200GiB; everything if left out")
	flags.StringVar(&f.cache, "artifact-cache", "", "how much is kept here of artifacts that buckets have, too; default 50Gi")
	flags.StringVar(&f.reserve, "disk-reserve", "", "below how much free disk copies go of artifacts that buckets have, too; default 5Gi, or 5% of a smaller disk")
	flags.DurationVar(&f.patience, "store-patience", 0, "how long a task waits for an object store that is away; default 72h")
	flags.BoolVar(&f.s3FromEnv, "s3-from-env", false, "lend the daemon's AWS_* variables to namespaces whose kfp-launcher config map says fromEnv")
	_ = cmd.RegisterFlagCompletionFunc("runtime", cobra.FixedCompletions(
		[]string{daemon.RuntimeAuto, daemon.RuntimeDocker, daemon.RuntimeProcess}, cobra.ShellCompDirectiveNoFileComp))
}

// given reports whether any of the flags was used on the command line.
func (f *daemonFlags) given(cmd *cobra.Command) []string {
	var used []string
	for _, name := range []string{"runtime", "fake-gpus", "fake-node", "container-env", "container-ca", "warm-steps", "cache-expiry", "node-label", "pipeline-urls", "retain",
		"artifact-cache", "disk-reserve", "store-patience", "s3-from-env"} {
		if cmd.Flags().Changed(name) {
			used = append(used, "--"+name)
		}
	}
	return used
}

// config is the daemon's configuration that the flags describe.
func (f *daemonFlags) config(a *app) (daemon.Config, error) {
	dir, err := a.absStateDir()
	if err != nil {
		return daemon.Config{}, err
	}
	cfg := daemon.Config{
		StateDir: dir, Runtime: f.runtime, FakeGPUs: f.fakeGPUs, FakeNode: f.fakeNode,
		ContainerEnv: f.containerEn, ContainerCA: f.containerCA, WarmSteps: f.warmSteps, CacheExpiry: f.cacheExpiry, NodeLabels: f.nodeLabels, PipelineURLs: f.sources, Version: a.version,
		StorePatience: f.patience, S3FromEnv: f.s3FromEnv,
	}
	for _, size := range []struct {
		flag, text, example string
		to                  *int64
	}{{"artifact-cache", f.cache, "50Gi", &cfg.ArtifactCache}, {"disk-reserve", f.reserve, "5Gi", &cfg.DiskReserve}} {
		if size.text == "" {
			continue
		}
		quantity, err := core.ParseQuantity(size.text)
		if err != nil || quantity.Value() <= 0 {
			return cfg, refuse(fmt.Errorf("--%s %q: want a size, such as %s", size.flag, size.text, size.example))
		}
		*size.to = quantity.Value()
	}
	if cfg.Retain, err = skiff.ParseRetention(f.retain); err != nil {
		return cfg, refuse(fmt.Errorf("--retain: %w", err))
	}
	if err := cfg.Check(); err != nil {
		return cfg, refuse(err)
	}
	if cfg.Executable, err = os.Executable(); err != nil {
		return cfg, fmt.Errorf("find this program's own file: %w", err)
	}
	return cfg, nil
}
