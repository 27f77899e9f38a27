package runtimetest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime"
	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/host"
)

func testCannotRun(f *fixture) {
	notExecutable := f.spec()
	for _, tt := range []struct {
		name string
		spec runtime.ContainerSpec
		argv []string
		code int
		text string
	}{
		{"not in PATH", f.spec(), []string{"no-such-program-here"}, 127, "not found in $PATH"},
		{"no such file", f.spec(), []string{"/no/such/file"}, 127, "no such file"},
		{"not executable", notExecutable, []string{f.out(notExecutable) + "/data"}, 126, "permission denied"},
		{"nothing", f.spec(), nil, 127, "no command"},
	} {
		f.check("write", os.WriteFile(filepath.Join(tt.spec.PodDir, "out", "data"), []byte("x"), 0o644))
		r := f.record(tt.spec, launch.Command{ID: "a", Argv: tt.argv})
		if r.ExitCode != tt.code || r.Reason != launch.ReasonCannotRun || !strings.Contains(r.Message, tt.text) {
			f.Errorf("%s: got %+v", tt.name, r)
		}
	}
}

func testEndedBySignal(f *fixture) {
	r := f.record(f.spec(), script("a", "kill -KILL $$"))
	if r.ExitCode != 137 || r.Signal != 9 || r.Reason != launch.ReasonError {
		f.Errorf("got %+v", r)
	}
}

func testOutputsAreFilesOnly(f *fixture) {
	s := f.spec()
	out := f.out(s)
	cmd := script("a", "cd "+out+` && mkfifo fifo && ln -s /etc/hostname link && mkdir dir &&
		head -c 5000000 /dev/zero > large && printf '\000\377' > bytes && : > empty`)
	for _, name := range []string{"fifo", "link", "dir", "large", "bytes", "empty"} {
		cmd.Outputs = append(cmd.Outputs, launch.Output{Name: name, Path: out + "/" + name})
	}
	r := f.record(s, cmd)
	if r.ExitCode != 0 {
		f.Fatalf("got %+v", r)
	}
	for _, name := range []string{"fifo", "link", "dir", "large"} {
		if _, there := r.Outputs[name]; there || r.OutputErrors[name] == "" {
			f.Errorf("%s: value of %d bytes, error %q", name, len(r.Outputs[name]), r.OutputErrors[name])
		}
	}
	if !bytes.Equal(r.Outputs["bytes"], []byte{0, 0xff}) {
		f.Errorf("bytes are %q", r.Outputs["bytes"])
	}
	if v, there := r.Outputs["empty"]; !there || len(v) != 0 {
		f.Errorf("the empty file is %q, %v", v, there)
	}
}

func testEnvironment(f *fixture) {
	s := f.spec()
	s.Env = []string{"A=spec", "B=spec", "TWICE=1", "TWICE=2"}
	dir := f.out(s) + "/work/here"
	cmd := script("a", `echo "$A $B $TWICE $C"; pwd; ls -d sub/*; [ -w sub/dir ] && echo writable`)
	cmd.Env = []string{"B=command", "C=x=y z"}
	cmd.Dir = dir
	cmd.Directories = []string{dir + "/sub/dir"}
	r := f.record(s, cmd)
	want := "spec command 2 x=y z\n" + dir + "\nsub/dir\nwritable\n"
	if got, _ := f.log(s, host.LogOptions{}); got != want || r.ExitCode != 0 {
		f.Errorf("code %d, got %q, want %q", r.ExitCode, got, want)
	}
	s = f.spec()
	s.Env = []string{"A=spec"}
	cmd = script("a", `echo "[$A]"`)
	cmd.ClearEnv = true
	f.record(s, cmd)
	if got, _ := f.log(s, host.LogOptions{}); got != "[]\n" {
		f.Errorf("with ClearEnv got %q", got)
	}
}

func testMounts(f *fixture) {
	if !f.caps.Mounts {
		f.Skip("this backend cannot mount")
	}
	s := f.spec()
	input := f.TempDir()
	f.check("write", os.WriteFile(filepath.Join(input, "x"), []byte("input"), 0o644))
	f.check("mkdir", os.Mkdir(filepath.Join(input, "out"), 0o755))
	f.check("chmod", os.Chmod(input, 0o755))
	s.Mounts = append(s.Mounts,
		runtime.Mount{HostPath: input, Path: "/minio", ReadOnly: true},
		runtime.Mount{HostPath: filepath.Join(input, "x"), Path: "/etc/skiff-test/one", ReadOnly: true},
		runtime.Mount{Path: "/scratch", Memory: true, Size: 1 << 20},
	)
	// The deeper mount of the pod's own folder lies over the read-only one, in
	// whatever order they are given.
	r := f.record(s, script("a", `
		cat /minio/x /etc/skiff-test/one && echo
		(echo y > /minio/x) 2>/dev/null && echo "the input can be written"
		(echo y > /minio/new) 2>/dev/null && echo "the input folder can be written"
		echo z > /minio/out/z && echo s > /scratch/s
		head -c 2000000 /dev/zero > /scratch/big 2>/dev/null && echo "the memory folder has no limit"
		exit 0`))
	if got, _ := f.log(s, host.LogOptions{}); got != "inputinput\n" || r.ExitCode != 0 {
		f.Errorf("code %d, got %q", r.ExitCode, got)
	}
	if got := f.result(s, "z"); got != "z\n" {
		f.Errorf("the output is %q", got)
	}
	if data, _ := os.ReadFile(filepath.Join(input, "x")); string(data) != "input" {
		f.Errorf("the input became %q", data)
	}
}

func testUser(f *fixture) {
	if !f.h.Users {
		f.Skip("this backend cannot change the user")
	}
	s := f.spec()
	s.User = "1234:5678"
	cmd := script("a", `echo "$(id -u):$(id -g)"; echo x > `+f.out(s)+`/made/x && chmod 600 `+f.out(s)+`/made/x`)
	cmd.Directories = []string{f.out(s) + "/made"}
	cmd.Outputs = []launch.Output{{Name: "x", Path: f.out(s) + "/made/x"}}
	cmd.User = s.User
	r := f.record(s, cmd)
	if got, _ := f.log(s, host.LogOptions{}); got != "1234:5678\n" {
		f.Errorf("got %q", got)
	}
	if string(r.Outputs["x"]) != "x\n" {
		f.Errorf("got %+v", r)
	}
}

func testHostname(f *fixture) {
	if !f.caps.Mounts {
		f.Skip("this backend has no names of its own")
	}
	s := f.spec()
	s.Hostname = "trainer-0"
	f.record(s, script("a", "cat /proc/sys/kernel/hostname"))
	if got, _ := f.log(s, host.LogOptions{}); got != "trainer-0\n" {
		f.Errorf("got %q", got)
	}
}

func testNothingOutlives(f *fixture) {
	// Seconds that nobody else sleeps.
	mark := fmt.Sprintf("5000.%09d", time.Now().UnixNano()%1e9)
	s := f.spec()
	r := f.record(s, script("a", fmt.Sprintf(`
		sleep %[1]s &
		(setsid sh -c 'sleep %[1]s & exec sleep %[1]s' &)
		i=0; while [ $i -lt 50 ]; do (true &); i=$((i+1)); done
		echo ready
		exit 0`, mark)))
	if r.ExitCode != 0 {
		f.Errorf("got %+v", r)
	}
	if n := processesWith(mark); n != 0 {
		f.Errorf("%d processes live after the record", n)
	}
}

func testStopGrace(f *fixture) {
	s := f.spec()
	id := f.launch(s, script("a", `trap 'echo ending; exit 3' TERM; echo up; while :; do sleep 0.05; done`))
	f.awaitLog(s, "up")
	f.check("stop", f.b.Stop(f.ctx(), id, time.Minute))
	if c, _ := f.find(id); c.Exit == nil || c.Exit.ExitCode != 3 || c.Exit.Reason != launch.ReasonStopped {
		f.Errorf("got %+v", c.Exit)
	}
	if got, _ := f.log(s, host.LogOptions{Streams: []string{"stdout"}}); got != "up\nending\n" {
		f.Errorf("the log is %q", got)
	}

	mark := fmt.Sprintf("6000.%09d", time.Now().UnixNano()%1e9)
	s = f.spec()
	id = f.launch(s, script("a", `trap '' TERM; echo up; while :; do sleep `+mark+`; done`))
	f.awaitLog(s, "up")
	begin := time.Now()
	const grace = 300 * time.Millisecond
	f.check("stop", f.b.Stop(f.ctx(), id, grace))
	if took := time.Since(begin); took < grace {
		f.Errorf("it was ended after %v, before its grace of %v", took, grace)
	}
	if n := processesWith(mark); n != 0 {
		f.Errorf("%d processes live after the stop", n)
	}
	if c, _ := f.find(id); c.Exit == nil || c.Exit.ExitCode != 137 || c.Exit.Reason != launch.ReasonStopped {
		f.Errorf("got %+v", c.Exit)
	}
}

func testStopFromOutside(f *fixture) {
	if f.h.SignalLauncher == nil {
		f.Skip("no launcher to signal")
	}
	s := f.spec()
	id := f.launch(s, script("a", `trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done`))
	f.awaitLog(s, "up")
	f.h.SignalLauncher(f.T, id, syscall.SIGTERM)
	if c := f.end(id); c.Exit == nil || c.Exit.ExitCode == 0 || c.Exit.Reason != launch.ReasonShutdown {
		f.Errorf("got %+v", c.Exit)
	}
}

func testLogBytes(f *fixture) {
	s := f.spec()
	f.record(s, script("a", `printf 'a\000\377b\r\n\n'; head -c 100000 /dev/zero | tr '\000' x; echo; printf end; echo err >&2`))
	want := "a\x00\xffb\r\n\n" + strings.Repeat("x", 100000) + "\nend"
	if got, dropped := f.log(s, host.LogOptions{Streams: []string{"stdout"}}); got != want || dropped != 0 {
		f.Errorf("stdout has %d bytes, %d dropped; want %d", len(got), dropped, len(want))
	}
	if got, _ := f.log(s, host.LogOptions{Streams: []string{"stderr"}}); got != "err\n" {
		f.Errorf("stderr is %q", got)
	}
	s = f.spec()
	f.record(s, script("a", `i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done`))
	got, _ := f.log(s, host.LogOptions{TailLines: 2})
	if got != "line 498\nline 499\n" {
		f.Errorf("the tail is %q", got)
	}
	all, _ := f.log(s, host.LogOptions{})
	for i, line := range strings.Split(strings.TrimSuffix(all, "\n"), "\n") {
		if line != "line "+strconv.Itoa(i) {
			f.Fatalf("line %d is %q", i, line)
		}
	}
}

func testLogCap(f *fixture) {
	s := f.spec()
	s.Log.MaxBytes = 64 << 10
	r := f.record(s, script("a", `echo first; i=0; while [ $i -lt 3000 ]; do
		echo "line $i ................................................................................."; i=$((i+1)); done; echo last`))
	got, dropped := f.log(s, host.LogOptions{})
	if !strings.HasPrefix(got, "first\n") || !strings.HasSuffix(got, "\nlast\n") {
		f.Error("the head or the tail is not kept")
	}
	if dropped == 0 || dropped != r.LogDropped || int64(len(got))+dropped != r.LogBytes {
		f.Errorf("kept %d and missed %d bytes; the record says %d of %d", len(got), dropped, r.LogDropped, r.LogBytes)
	}
	held := int64(0)
	files, _ := filepath.Glob(filepath.Join(launch.ControlDir(s.PodDir, s.Container), launch.LogPrefix+"*"))
	for _, file := range files {
		info, err := os.Stat(file)
		f.check("stat", err)
		held += info.Size()
	}
	if held > s.Log.MaxBytes {
		f.Errorf("the log holds %d bytes, more than %d", held, s.Log.MaxBytes)
	}
}

func testMemoryLimit(f *fixture) {
	if !f.caps.Limits {
		f.Skip("this backend has no limits")
	}
	s := f.spec()
	s.Resources.MemoryBytes = 48 << 20
	c := f.run(s, script("a", "tail /dev/zero"))
	oom := c.OOMKilled || c.Exit != nil && c.Exit.Reason == launch.ReasonOOMKilled
	if !oom || c.Exit == nil || c.Exit.ExitCode == 0 {
		f.Errorf("got %+v with record %+v", c, c.Exit)
	}
	s = f.spec()
	s.Resources.MemoryBytes = 48 << 20
	c = f.run(s, script("a", "exit 5"))
	if c.OOMKilled || c.Exit == nil || c.Exit.ExitCode != 5 || c.Exit.Reason != launch.ReasonError {
		f.Errorf("a command within its limit: %+v with record %+v", c, c.Exit)
	}
}

func testPidsLimit(f *fixture) {
	if !f.caps.Limits {
		f.Skip("this backend has no limits")
	}
	s := f.spec()
	s.Resources.Pids = 30
	f.run(s, script("a", `i=0; while [ $i -lt 60 ]; do sleep 600 & i=$((i+1)); done; echo all; exit 0`))
	if got, _ := f.log(s, host.LogOptions{Streams: []string{"stdout"}}); strings.Contains(got, "all") {
		f.Error("60 processes started under a limit of 30")
	}
}

func testStats(f *fixture) {
	s := f.spec()
	id := f.launch(s, script("a", "echo up; exec sleep 600"))
	f.awaitLog(s, "up")
	st, err := f.b.Stats(f.ctx(), id)
	f.check("stats", err)
	if st.MemoryBytes <= 0 || st.CPUNanos < 0 || st.Pids < 1 || time.Since(st.At) > time.Minute {
		f.Errorf("got %+v", st)
	}
}

func testDevices(f *fixture) {
	const show = `echo "[${CUDA_VISIBLE_DEVICES-unset}] [${NVIDIA_VISIBLE_DEVICES-unset}]"`
	s := f.spec()
	f.record(s, script("a", show))
	if got, _ := f.log(s, host.LogOptions{}); got != "[] [void]\n" {
		f.Errorf("without a grant got %q", got)
	}
	s = f.spec()
	s.GPUs, s.FakeGPUs = []string{"GPU-fake-1", "GPU-fake-2"}, true
	f.record(s, script("a", show))
	if got, _ := f.log(s, host.LogOptions{}); got != "[GPU-fake-1,GPU-fake-2] [GPU-fake-1,GPU-fake-2]\n" {
		f.Errorf("with a grant got %q", got)
	}
	// What the user writes does not widen the grant.
	s = f.spec()
	s.Env = []string{"CUDA_VISIBLE_DEVICES=0", "NVIDIA_VISIBLE_DEVICES=all"}
	cmd := script("a", show)
	cmd.Env = s.Env
	f.record(s, cmd)
	if got, _ := f.log(s, host.LogOptions{}); got != "[] [void]\n" {
		f.Errorf("against the user's own variables got %q", got)
	}
}

func testNoNewPrivileges(f *fixture) {
	s := f.spec()
	f.record(s, script("a", `grep -E '^(NoNewPrivs|CapPrm|CapBnd):' /proc/self/status`))
	got, _ := f.log(s, host.LogOptions{})
	if !strings.Contains(got, "NoNewPrivs:\t1") {
		f.Errorf("got %q", got)
	}
	caps := map[string]uint64{}
	for line := range strings.Lines(got) {
		name, hex, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		n, err := strconv.ParseUint(hex, 16, 64)
		f.check("parse "+line, err)
		caps[name] = n
	}
	// SYS_MODULE, SYS_RAWIO, SYS_PTRACE, SYS_ADMIN, SYS_BOOT. A process that has
	// none cannot empty its bounding set, and needs not.
	const never = 1<<16 | 1<<17 | 1<<19 | 1<<21 | 1<<22
	if caps["CapPrm"]&never != 0 || caps["CapPrm"] != 0 && caps["CapBnd"]&never != 0 {
		f.Errorf("permitted %x, bounding %x", caps["CapPrm"], caps["CapBnd"])
	}
}

func testExec(f *fixture) {
	s := f.spec()
	s.Env = []string{"FROM=spec"}
	id := f.launch(s, script("a", `echo inside > /tmp/skiff-test-file; echo up; exec sleep 600`))
	f.awaitLog(s, "up")
	var stdout, stderr bytes.Buffer
	code, err := f.b.Exec(f.ctx(), id, runtime.ExecRequest{
		Argv: []string{"/bin/sh", "-c", `cat /tmp/skiff-test-file; cat; echo "$FROM $MORE"; pwd; echo err >&2; exit 6`},
		Env:  []string{"MORE=exec"}, Dir: "/usr", Stdin: strings.NewReader("typed\n"), Stdout: &stdout, Stderr: &stderr,
	})
	f.check("exec", err)
	if code != 6 || stdout.String() != "inside\ntyped\nspec exec\n/usr\n" || stderr.String() != "err\n" {
		f.Errorf("code %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
	}
	code, err = f.b.Exec(f.ctx(), id, runtime.ExecRequest{Argv: []string{"no-such-program-here"}})
	if err == nil && code != 126 && code != 127 {
		f.Errorf("a program that is not there ends with %d", code)
	}
	f.check("stop", f.b.Stop(f.ctx(), id, 0))
	if _, err := f.b.Exec(f.ctx(), id, runtime.ExecRequest{Argv: []string{"true"}}); err == nil {
		f.Error("exec in an exited container")
	}
}

func testExecTTY(f *fixture) {
	s := f.spec()
	id := f.launch(s, script("a", "echo up; exec sleep 600"))
	f.awaitLog(s, "up")
	resize := make(chan runtime.TerminalSize, 1)
	resize <- runtime.TerminalSize{Width: 91, Height: 37}
	in, typed := io.Pipe()
	defer typed.Close() //nolint:errcheck // A test's own.
	var out syncBuffer
	done := make(chan error, 1)
	var code int
	go func() {
		var err error
		code, err = f.b.Exec(f.ctx(), id, runtime.ExecRequest{
			Argv: []string{"/bin/sh", "-c", `test -t 0 && test -t 1 && echo terminal; read line; stty size; echo "got $line"; exit 4`},
			TTY:  true, Resize: resize, Stdin: in, Stdout: &out,
		})
		done <- err
	}()
	for !strings.Contains(out.String(), "terminal") {
		select {
		case err := <-done:
			f.Fatalf("exec ended with %d, %v; output %q", code, err, out.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	_, err := io.WriteString(typed, "hello\n")
	f.check("type", err)
	f.check("exec", <-done)
	got := out.String()
	if code != 4 || !strings.Contains(got, "37 91") || !strings.Contains(got, "got hello") {
		f.Errorf("code %d, output %q", code, got)
	}
}

func testDial(f *fixture) {
	if f.h.Python == "" {
		f.Skip("no image with Python")
	}
	s := f.spec()
	s.Image = f.image(f.h.Python)
	port := freePort(f)
	id := f.launch(s, launch.Command{ID: "a", Argv: []string{"python3", "-c", fmt.Sprintf(`
import socket
s = socket.create_server(("0.0.0.0", %d))
print("up", flush=True)
while True:
    c, _ = s.accept()
    c.sendall(b"hi " + c.recv(100))
    c.close()
`, port)}})
	f.awaitLog(s, "up")
	c, err := f.b.Dial(f.ctx(), id, port)
	f.check("dial", err)
	defer c.Close()
	f.check("deadline", c.SetDeadline(time.Now().Add(f.timeout())))
	_, err = io.WriteString(c, "there")
	f.check("write", err)
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "hi there" {
		f.Errorf("got %q, %v", got, err)
	}
}

// freePort is one that nobody on this machine listens on.
func freePort(f *fixture) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	f.check("listen", err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
