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
	"another, fresh one by `skiff import`: hashed, packed, sent over the socket, unpacked, checked and made durable. The " +
	"contents are random bytes, as weights are to a compressor. Beside it, in turns, `cp` of the same bytes on the same disk and a sync of what it made. " +
	"Either begins with what it reads on the disk and not in memory."

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
		source := filepath.Join(d.state, "artifacts", "default", "minio", "mlpipeline")
		peer := b.copying(source, filepath.Join(dir, "copy"), megabytes)
		for _, file := range []string{zipped, bare} {
			export := func(ctx context.Context) (float64, error) {
				if err := os.RemoveAll(file); err != nil {
					return 0, err
				}
				if err := evict(source); err != nil {
					return 0, err
				}
				begin := time.Now()
				err := b.command(ctx, d.state, "export", "run", run, "--artifacts", "-o", file)
				return megabytes / time.Since(begin).Seconds(), err
			}
			if err := b.compare(ctx, fmt.Sprintf("export of %s, %s", name, suffix(file)), "cp and sync", rate(), ratioAtLeast(0.8), export, peer); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, file := range []string{zipped, bare} {
		peer := b.copying(file, filepath.Join(dir, "copy"), megabytes)
		if err := b.compare(ctx, fmt.Sprintf("import of %s, %s", name, suffix(file)), "cp and sync", rate(), ratioAtLeast(0.8), b.importing(file, megabytes), peer); err != nil {
			return err
		}
	}
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(filepath.Join(b.dir, "from")))
}

func rate() unit { return unit{suffix: " MB/s", format: "%.0f"} }

func suffix(file string) string { return strings.TrimPrefix(filepath.Base(file), "run") }

// importing is an import into a daemon that has nothing yet.
func (b *bench) importing(file string, megabytes float64) measure {
	return func(ctx context.Context) (speed float64, err error) {
		err = b.withDaemon(ctx, "to", []string{"--runtime", "process"}, func(d *daemon) error {
			if err := evict(file); err != nil {
				return err
			}
			begin := time.Now()
			err := b.command(ctx, d.state, "import", file)
			speed = megabytes / time.Since(begin).Seconds()
			return err
		})
		// Its folders are read-only, which is no hindrance to whoever owns them.
		return speed, errors.Join(err, exec.CommandContext(ctx, "chmod", "-R", "u+w", filepath.Join(b.dir, "to")).Run(), os.RemoveAll(filepath.Join(b.dir, "to")))
	}
}

// copying is the peer: cp, and a sync of what it made.
func (b *bench) copying(from, to string, megabytes float64) measure {
	return func(ctx context.Context) (float64, error) {
		if err := evict(from); err != nil {
			return 0, err
		}
		begin := time.Now()
		err := exec.CommandContext(ctx, "cp", "-r", from, to).Run()
		if err == nil {
			err = exec.CommandContext(ctx, "sync", "-f", to).Run()
		}
		speed := megabytes / time.Since(begin).Seconds()
		return speed, errors.Join(err, exec.CommandContext(ctx, "chmod", "-R", "u+w", to).Run(), os.RemoveAll(to))
	}
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
