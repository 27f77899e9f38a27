package kfp

// Limits bound what a package may hold. Zero fields mean the defaults.
type Limits struct {
	// MaxBytes bounds a package file, and its document once unpacked.
	MaxBytes int64
	// MaxNodes bounds the values in a document, aliases counted each time they
	// are used; MaxDepth how deep they nest.
	MaxNodes int
	MaxDepth int
	// MaxEntries bounds the files in an archive.
	MaxEntries int
	// MaxIterations bounds the items of one loop.
	MaxIterations int
	// MaxTasks bounds the tasks that a run is known to have beforehand: those
	// written out, times the passes of the loops around them.
	MaxTasks int64
	// MaxProblems bounds how many problems of one document are reported.
	MaxProblems int
}

// The default limits.
const (
	// DefaultMaxBytes is far above the largest compiled pipelines known (about
	// 2 MB, with embedded notebooks), and little to hold in memory twice.
	DefaultMaxBytes = 16 << 20
	// DefaultMaxNodes lets a pipeline of 10,000 tasks written out through; a
	// value costs some 300 bytes while a document is read.
	DefaultMaxNodes = 400_000
	// DefaultMaxDepth is six times as deep as the IR itself; the rest is for
	// values.
	DefaultMaxDepth = 100
	// DefaultMaxEntries is for archives that carry their sources along.
	DefaultMaxEntries = 1000
	// DefaultMaxIterations is the size of loop that the engine is built for.
	DefaultMaxIterations = 10_000
	// DefaultMaxTasks is a week of work at two tasks a second, and 2 GB of
	// state; a pipeline that asks for more has made a mistake.
	DefaultMaxTasks = 1_000_000
	// DefaultMaxProblems is more than anybody reads at once.
	DefaultMaxProblems = 50
)

// WithDefaults fills in the fields that are zero.
func (l Limits) WithDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = DefaultMaxBytes
	}
	if l.MaxNodes <= 0 {
		l.MaxNodes = DefaultMaxNodes
	}
	if l.MaxDepth <= 0 {
		l.MaxDepth = DefaultMaxDepth
	}
	if l.MaxEntries <= 0 {
		l.MaxEntries = DefaultMaxEntries
	}
	if l.MaxIterations <= 0 {
		l.MaxIterations = DefaultMaxIterations
	}
	if l.MaxTasks <= 0 {
		l.MaxTasks = DefaultMaxTasks
	}
	if l.MaxProblems <= 0 {
		l.MaxProblems = DefaultMaxProblems
	}
	return l
}
