package launch

import (
	"path/filepath"
	"time"
)

// Version is the protocol's. A daemon speaks every version that running pods of
// older releases may still use.
const Version = 1

// MaxFrame bounds one frame: a command with its environment and arguments fits
// many times over (the kernel's own limit for both is 2 MiB by default).
const MaxFrame = 16 << 20

// MaxOutput bounds one output file that travels in the exit record and
// MaxOutputs all of them together: values of parameters, not artifacts.
const (
	MaxOutput  = 4 << 20
	MaxOutputs = 8 << 20
)

// File names in the control folder. The lock is held for the launcher's life. Once
// there is a command it holds Started, as its first line; with ExitRecord as its
// last line it becomes the exit file. A step so costs one file.
const (
	ConfigFile  = "config.json"
	CommandFile = "command.json"
	LockFile    = "lock"
	SocketFile  = "s"
	HeldFile    = "held.json"
	ExitFile    = "exit.json"
	LogPrefix   = "log."
)

// KeepArg in place of a control folder makes a launcher that serves one container
// after another, each for the whole of the container's life. What it is to do it
// hears on the stream socket that it inherits as descriptor KeepFD.
//
//	daemon:   Base ──────► Assign, Launch ─────────────────────► Assign …
//	launcher:       Idle                   Started … Exited, Idle
//
// Between two containers nothing runs in its namespaces, and it ends where a
// command left something behind that the next one could notice, or where the
// daemon hangs up.
const (
	KeepArg = "-keep"
	KeepFD  = 3
)

// ControlDir is the control folder of a container of the pod whose folder is podDir.
func ControlDir(podDir, container string) string { return filepath.Join(podDir, container) }

// Config is what the launcher knows before it has a command.
type Config struct {
	Version   int       `json:"version"`
	Container string    `json:"container"` // the container's full name
	Log       LogConfig `json:"log"`
	// DaemonUID and DaemonGID own what the launcher leaves behind, where it may
	// give files away.
	DaemonUID int `json:"daemonUID"`
	DaemonGID int `json:"daemonGID"`
	// View is the world as the process runtime's launcher builds it; containers
	// have theirs from the engine.
	View *View `json:"view,omitempty"`
}

// View is what the process runtime's launcher arranges before it takes a
// command: the control groups it joins and, where it has a mount namespace of
// its own, a new root. A launcher with a view also takes every privilege that
// a container would not have from the command.
type View struct {
	// Cgroups are control group folders that the launcher joins first.
	Cgroups []string `json:"cgroups,omitempty"`
	// Root is an empty host folder on which the new root is assembled: the
	// host's folders read-only, fresh /proc, /dev, /run. Empty keeps the
	// host's root and ignores what follows, except Hostname.
	Root string `json:"root,omitempty"`
	// Masked host folders appear empty. They are masked before Mounts are made,
	// so a mount may lie below one.
	Masked []string `json:"masked,omitempty"`
	// Mounts are made in order; HostPath may be a file or a folder.
	Mounts []ViewMount `json:"mounts,omitempty"`
	// Devices are further host device nodes that appear in /dev.
	Devices []string `json:"devices,omitempty"`
	// ShmBytes is the size of /dev/shm; 0 means 64 MiB.
	ShmBytes int64 `json:"shmBytes,omitempty"`
	// Hostname, where the launcher has a UTS namespace.
	Hostname string `json:"hostname,omitempty"`
	// Loopback brings the loopback device up, in a network namespace of its own.
	Loopback bool `json:"loopback,omitempty"`
}

// ViewMount is one bind mount; a tmpfs of at most Size bytes where Memory is
// set; a copy-on-write layer over HostPath where Layer names an empty host
// folder for what is written.
type ViewMount struct {
	// HostPath is absolute and clean; no link in it is followed.
	HostPath string `json:"hostPath,omitempty"`
	Path     string `json:"path"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	Memory   bool   `json:"memory,omitempty"`
	Size     int64  `json:"size,omitempty"`
	Layer    string `json:"layer,omitempty"`
	// Scratch is for a Base: what a container leaves in the folder is removed
	// before the next one.
	Scratch bool `json:"scratch,omitempty"`
}

// LogConfig bounds a container's log.
type LogConfig struct {
	// MaxBytes is the most the log files may hold together; 0 means
	// DefaultLogBytes. The head and the tail are kept, what lies between is
	// dropped and counted.
	MaxBytes int64 `json:"maxBytes,omitempty"`
}

// DefaultLogBytes is 100 MiB: a day of chatty training, a small part of a disk.
const DefaultLogBytes = 100 << 20

// Command is what runs, once.
type Command struct {
	// ID is the attempt's identity; the launcher runs one ID in its life.
	ID   string   `json:"id"`
	Argv []string `json:"argv"`
	// Env is added to what the container has; later entries win.
	Env []string `json:"env,omitempty"`
	// ClearEnv drops what the launcher inherited first.
	ClearEnv bool `json:"clearEnv,omitempty"`
	// Dir is the working directory; empty keeps the container's.
	Dir string `json:"dir,omitempty"`
	// Directories are created with their parents (0777) before the start.
	Directories []string `json:"directories,omitempty"`
	// Links are symbolic links made before the start, parents included, where
	// nothing stands at Path yet.
	Links []Link `json:"links,omitempty"`
	// Outputs are read after everything has ended.
	Outputs []Output `json:"outputs,omitempty"`
	// Collect moves outputs that a component wrote to a place of its own
	// choosing into the place where they are kept, after a success.
	Collect *Collect `json:"collect,omitempty"`
	// Grace is how long the command has between SIGTERM and SIGKILL when the
	// launcher itself is told to end.
	Grace time.Duration `json:"grace,omitempty"`
	// Hold is how long the container is kept when the command has failed, for
	// people to look around in; 0 is not at all. See Held.
	Hold time.Duration `json:"hold,omitempty"`
	// User is "uid[:gid]" for a launcher that runs as root and must not run the
	// command so; empty keeps the launcher's own.
	User string `json:"user,omitempty"`
}

// Link makes Path, below the working directory where it is relative, point to
// Target.
type Link struct {
	Path   string `json:"path"`
	Target string `json:"target"`
	// Optional links are left out where they cannot be made.
	Optional bool `json:"optional,omitempty"`
}

// Collect names a KFP executor output (ml_pipelines.ExecutorOutput, JSON). For
// each artifact in it that carries a custom path ("customPath" or
// "custom_path") other than Paths[name], the file or folder there is copied to
// Paths[name]: links inside are kept only where they stay inside, anything but
// regular files and folders is left out. What fails is reported in the exit
// record's OutputErrors under the artifact's name.
type Collect struct {
	Manifest string            `json:"manifest"`
	Paths    map[string]string `json:"paths"`
}

// Output is a file to read after the command.
type Output struct {
	Name string `json:"name"`
	Path string `json:"path"`
}

// Phase is where a launcher stands.
type Phase string

// The phases.
const (
	PhaseWaiting Phase = "waiting"
	PhaseRunning Phase = "running"
	PhaseExited  Phase = "exited"
)

// Frame is one message; exactly one field is set.
type Frame struct {
	Hello   *Hello      `json:"hello,omitempty"`
	Launch  *Command    `json:"launch,omitempty"`
	Started *Started    `json:"started,omitempty"`
	Signal  *Signal     `json:"signal,omitempty"`
	Stop    *Stop       `json:"stop,omitempty"`
	Held    *Held       `json:"held,omitempty"`
	Exited  *ExitRecord `json:"exited,omitempty"`
	Exec    *Exec       `json:"exec,omitempty"`
	Execed  *Execed     `json:"execed,omitempty"`
	Base    *View       `json:"base,omitempty"`
	Assign  *Assign     `json:"assign,omitempty"`
	Idle    *Idle       `json:"idle,omitempty"`
	// Error answers a frame that could not be acted on.
	Error string `json:"error,omitempty"`
}

// Hello is the launcher's first word on every connection.
type Hello struct {
	Version int   `json:"version"`
	Phase   Phase `json:"phase"`
	PID     int   `json:"pid"`
}

// Started says that the command's process exists.
type Started struct {
	CommandID string    `json:"commandID"`
	PID       int       `json:"pid"`
	At        time.Time `json:"at"`
}

// Signal asks for one signal to the command's process group.
type Signal struct {
	Number int `json:"number"`
}

// Held says that the command has failed and its container is kept as it left it
// until somebody asks for the end (Stop, a signal) or Until has come. The exit
// record follows only then, and says of the command what is said here. To
// daemons that do not know of it such a launcher is one whose command runs.
type Held struct {
	CommandID string    `json:"commandID"`
	ExitCode  int       `json:"exitCode"`
	Signal    int       `json:"signal,omitempty"`
	Reason    string    `json:"reason"`
	Message   string    `json:"message,omitempty"`
	At        time.Time `json:"at"`
	Until     time.Time `json:"until"`
}

// Stop asks for the end: SIGTERM, and SIGKILL to everything after Grace. A
// launcher that still waits ends at once with a record of reason ReasonStopped.
type Stop struct {
	Grace time.Duration `json:"grace"`
}

// Exec asks for a second command beside the first, in its view of the world.
// The frame carries three file descriptors (SCM_RIGHTS): stdin, stdout, stderr.
// It gets a connection of its own; closing that ends the command.
type Exec struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	// TTY makes stdin the controlling terminal.
	TTY bool `json:"tty,omitempty"`
}

// Execed is how an Exec ended; 126 and 127 with a message where it could not
// be executed.
type Execed struct {
	ExitCode int    `json:"exitCode"`
	Message  string `json:"message,omitempty"`
}

// Assign gives a launcher that was started with KeepArg its next container. The
// frame carries the container's lock file, locked, as a descriptor.
type Assign struct {
	// Control is the container's control folder, as the host names it.
	Control string `json:"control"`
	// Config is what others read from ConfigFile. Its view is what the container
	// has beside the Base: mounts, shared memory, host name.
	Config Config `json:"config"`
	// Env is the container's environment, the Command's is added to it.
	Env []string `json:"env,omitempty"`
	// Dir is the working directory of commands that name none.
	Dir string `json:"dir,omitempty"`
}

// Idle says that the launcher takes the next Assign.
type Idle struct{}

// Reasons of an exit record.
const (
	ReasonCompleted = "Completed"          // code 0
	ReasonError     = "Error"              // the command's own non-zero code or signal
	ReasonCannotRun = "ContainerCannotRun" // it could not be executed: 126 or 127
	ReasonOOMKilled = "OOMKilled"          // the kernel ended the command for memory
	ReasonStopped   = "Stopped"            // skiff asked for the end
	ReasonShutdown  = "Shutdown"           // somebody else ended the container: an infrastructure fault
)

// ExitRecord is the launcher's last word. It is written by rename after
// everything in the container has been ended and reaped, so it is also the
// proof that nothing of the container runs any more.
type ExitRecord struct {
	Version   int    `json:"version"`
	CommandID string `json:"commandID,omitempty"`
	// ExitCode is 128+signal for a command that a signal ended. It is never 0
	// for a launcher that got no command, nor for a command that was told to
	// stop: one that answers SIGTERM with code 0 is recorded as 143.
	ExitCode int    `json:"exitCode"`
	Signal   int    `json:"signal,omitempty"`
	Reason   string `json:"reason"`
	Message  string `json:"message,omitempty"`
	// StartedAt and FinishedAt are the command's, by this machine's clock.
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt"`
	// Outputs holds what each declared file held; a file that was not there, or
	// not a regular file, is absent. OutputErrors says why one could not be
	// read (too large, not a file …).
	Outputs      map[string][]byte `json:"outputs,omitempty"`
	OutputErrors map[string]string `json:"outputErrors,omitempty"`
	// LogBytes is how much the command wrote to both streams, LogDropped how
	// much of that the log files do not hold.
	LogBytes   int64 `json:"logBytes"`
	LogDropped int64 `json:"logDropped,omitempty"`
	// CPUTime is user and system time of everything that was reaped; MaxRSS the
	// largest process's resident set, in bytes.
	CPUTime time.Duration `json:"cpuTime"`
	MaxRSS  int64         `json:"maxRSS"`
}

// LogEntry is one record of a log file. On disk it is one line,
//
//	2006-01-02T15:04:05.000000000Z stdout F text
//
// the Container Runtime Interface's log format: F ends a line of the command's
// output, P marks a part of one that is longer than LogChunk or that was
// flushed unfinished, the last one without a newline included; so the texts, a
// newline after each F, are the output to the byte. A text may hold any byte
// but '\n'.
//
// Every file but log.0 starts with a line of the stream "offset" whose text is
// how many bytes of output came before it: the difference to what the files
// before it hold is what was dropped between them.
type LogEntry struct {
	At      time.Time
	Stream  string // "stdout" or "stderr"
	Partial bool
	Text    []byte
}

// LogOffset is the stream name of a log file's first line.
const LogOffset = "offset"

// LogChunk is the longest text of one entry.
const LogChunk = 16 << 10
