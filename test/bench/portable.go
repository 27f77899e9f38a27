package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const portableAbout = "A run's artifacts leave one daemon by `skiff export run --artifacts` (a `.tar.gz`, and a bare `.tar`) and come to " +
	"another, fresh one by `skiff import`: hashed, packed, unpacked, checked and made durable. The contents are random bytes, as weights are to a " +
	"compressor. Beside it, in turns, `cp -r` of the same artifact on the same disk and a sync of what it made, so that both read and make durable as " +
	"much; an import is held against the copy of the files that it makes. Either begins with what it reads on the disk and not in memory. " +
	"Processor time is that of the command and the daemon together, beside that of `cp` and `sync`; memory is the daemon's greatest."

const mebibyte = 1 << 20

// runPortable measures a run with one large artifact and one with a folder of
// many files.
func runPortable(ctx context.Context, b *bench) error {
	size := b.size(512, 8) * mebibyte
	files := b.size(500, 10)
	for _, one := range []struct{ name, script string }{
		{fmt.Sprintf("one file of %d MiB", size/mebibyte), fmt.Sprintf(`head -c %d /dev/urandom > "$out"`, size)},
		{fmt.Sprintf("a folder of %s files, %d MiB together", thousands(fmt.Sprint(files)), size/mebibyte), fmt.Sprintf(
			`mkdir "$out"; i=0; while [ $i -lt %d ]; do head -c %d /dev/urandom > "$out/$i"; i=$((i+1)); done`, files, size/files)},
	} {
		if err := b.portableRun(ctx, one.name, one.script, float64(size)/1e6); err != nil {
			return fmt.Errorf("%s: %w", one.name, err)
		}
	}
	return nil
}

// portableRun measures the transfers of a run whose step writes $out.
func (b *bench) portableRun(ctx context.Context, name, script string, megabytes float64) error {
	pipeline, err := writes(script)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "bundles")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make a folder for bundles: %w", err)
	}
	t := &transfers{b: b, megabytes: megabytes, copy: filepath.Join(dir, "copy")}
	zipped, bare := filepath.Join(dir, "run.tar.gz"), filepath.Join(dir, "run.tar")
	err = b.withDaemon(ctx, "from", []string{"--runtime", "process"}, func(d *daemon) error {
		run, err := d.submit(ctx, pipeline)
		if err == nil {
			err = d.await(ctx, run)
		}
		if err != nil {
			return err
		}
		// The hash is computed in the background; it is none of an export's work.
		if err := b.command(ctx, d.state, "export", "run", run, "--artifacts", "-o", filepath.Join(dir, "first.tar")); err != nil {
			return err
		}
		t.source = filepath.Join(d.state, "artifacts", "default", "minio", "mlpipeline")
		for _, file := range []string{zipped, bare} {
			if err := t.compare(ctx, fmt.Sprintf("export of %s, %s", name, suffix(file)), t.exporting(d, run, file)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, file := range []string{zipped, bare} {
		if err := t.compare(ctx, fmt.Sprintf("import of %s, %s", name, suffix(file)), t.importing(file)); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(filepath.Join(b.dir, "from")))
}

func rate() unit { return unit{suffix: " MB/s", format: "%.0f"} }

// processor is processor time for what is moved.
func processor() unit { return unit{suffix: " s/GB", format: "%.2f"} }

func suffix(file string) string { return strings.TrimPrefix(filepath.Base(file), "run") }

// maxTransferMemory is far less than what is moved, and does not grow with it.
const maxTransferMemory = 160

// transfers are of one artifact, and what they took beside their time.
type transfers struct {
	b *bench
	// source is the artifact's folder, copy where the peer copies it.
	source, copy string
	megabytes    float64
	// mine and others are processor times, in seconds a gigabyte, and memory the
	// daemons' most, in megabytes.
	mine, others, memory []float64
}

// compare adds the rows of one way.
func (t *transfers) compare(ctx context.Context, name string, ours measure) error {
	t.mine, t.others, t.memory = nil, nil, nil
	if err := t.b.compare(ctx, name, "cp and sync", rate(), ratioAtLeast(0.8), ours, t.peer); err != nil {
		return err
	}
	t.b.pair(name+": processor time", "cp and sync", processor(), noBar(), t.mine, t.others)
	t.b.figure(name+": most memory of the daemon", megabytes(), atMost(maxTransferMemory, megabytes()), t.memory)
	return nil
}

// exporting is an export by a daemon that is up.
func (t *transfers) exporting(d *daemon, run, file string) measure {
	return func(ctx context.Context) (float64, error) {
		if err := errors.Join(os.RemoveAll(file), evict(t.source)); err != nil {
			return 0, err
		}
		return t.timed(ctx, d, "export", "run", run, "--artifacts", "-o", file)
	}
}

// importing is an import into a daemon that has nothing yet.
func (t *transfers) importing(file string) measure {
	return func(ctx context.Context) (speed float64, err error) {
		err = t.b.withDaemon(ctx, "to", []string{"--runtime", "process"}, func(d *daemon) error {
			if err := evict(file); err != nil {
				return err
			}
			speed, err = t.timed(ctx, d, "import", file)
			return err
		})
		return speed, errors.Join(err, discard(ctx, filepath.Join(t.b.dir, "to")))
	}
}

// timed runs the program under test beside its daemon.
func (t *transfers) timed(ctx context.Context, d *daemon, args ...string) (float64, error) {
	before, err := d.cpu()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, t.b.skiff, append(args, "--state-dir", d.state)...)
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("skiff %s: %w: %s", strings.Join(args, " "), err, out)
	}
	took := time.Since(begin)
	after, err := d.cpu()
	if err != nil {
		return 0, err
	}
	text := field(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid), "VmHWM")
	var kilobytes float64
	if _, err := fmt.Sscan(text, &kilobytes); err != nil {
		return 0, fmt.Errorf("read the daemon's memory (%q): %w", text, err)
	}
	t.memory = append(t.memory, kilobytes*1024/1e6)
	t.mine = append(t.mine, t.perGigabyte(after-before+spent(cmd)))
	return t.megabytes / took.Seconds(), nil
}

// peer is cp, and a sync of what it made.
func (t *transfers) peer(ctx context.Context) (float64, error) {
	if err := evict(t.source); err != nil {
		return 0, err
	}
	cp, sync := exec.CommandContext(ctx, "cp", "-r", t.source, t.copy), exec.CommandContext(ctx, "sync", "-f", t.copy)
	begin := time.Now()
	err := cp.Run()
	if err == nil {
		err = sync.Run()
	}
	if err != nil {
		return 0, fmt.Errorf("copy %s: %w", t.source, err)
	}
	speed := t.megabytes / time.Since(begin).Seconds()
	t.others = append(t.others, t.perGigabyte(spent(cp)+spent(sync)))
	return speed, discard(ctx, t.copy)
}

func (t *transfers) perGigabyte(d time.Duration) float64 { return d.Seconds() / t.megabytes * 1000 }

// spent is the processor time of a command that has ended.
func spent(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// discard removes a folder, read-only ones in it too: those are no hindrance to
// whoever owns them.
func discard(ctx context.Context, path string) error {
	return errors.Join(exec.CommandContext(ctx, "chmod", "-R", "u+w", path).Run(), os.RemoveAll(path))
}

// evict makes the kernel forget what it has in memory of the files at a path.
func evict(path string) error {
	return filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		// What is not on the disk yet cannot be forgotten.
		if err = f.Sync(); err == nil {
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		return errors.Join(err, f.Close())
	})
}

// command runs the program under test.
func (b *bench) command(ctx context.Context, state string, args ...string) error {
	cmd := exec.CommandContext(ctx, b.skiff, append(args, "--state-dir", state)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("skiff %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// writes is a pipeline of one step that writes an artifact, $out, by a script.
func writes(script string) ([]byte, error) {
	type object = map[string]any
	schema := object{"schemaTitle": "system.Artifact", "schemaVersion": "0.0.1"}
	data, err := json.Marshal(object{
		"schemaVersion": "2.1.0", "sdkVersion": "by-hand", "pipelineInfo": object{"name": "writes"},
		"components": object{"comp-step": object{"executorLabel": "exec-step",
			"outputDefinitions": object{"artifacts": object{"data": object{"artifactType": schema}}}}},
		"deploymentSpec": object{"executors": object{"exec-step": object{"container": object{
			"image": "busybox", "command": []string{"sh", "-ec"}, "args": []string{`out="{{$.outputs.artifacts['data'].path}}"; ` + script},
		}}}},
		"root": object{"dag": object{"tasks": object{"step": object{"taskInfo": object{"name": "step"}, "componentRef": object{"name": "comp-step"}}}}},
	})
	if err != nil {
		return nil, fmt.Errorf("write the pipeline: %w", err)
	}
	return data, nil
}
