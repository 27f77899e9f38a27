package scheduler

import "time"

// Demand is what one pod asks for.
type Demand struct {
	CPUMilli, MemoryBytes int64
	// GPUs are whole devices. Kind is for MIG slices and shares, which are
	// asked for by name; empty means whole.
	GPUs      int
	GPUKind   string
	Pools     map[string]int64
	HostPorts []int32
}

// Item is a pod in the queue.
type Item struct {
	// ID is the pod's uid.
	ID string
	// Name is how people know it ("default/train-0"), for waiting sentences.
	Name      string
	Namespace string
	Demand    Demand
	// Priority: higher first. Submitted breaks ties: older first; ID after that.
	Priority  int32
	Submitted time.Time
	// Gang groups items that are admitted all or none; GangSize is how many
	// there must be before any is considered.
	Gang     string
	GangSize int
}

// Device is one accelerator.
type Device struct {
	UUID        string
	Index       int
	Model       string
	MemoryBytes int64
	NUMA        int
	// Healthy devices get new work; others keep what runs.
	Healthy bool
	Fake    bool
}

// Node is the capacity the scheduler gives out.
type Node struct {
	CPUMilli, MemoryBytes int64
	Devices               []Device
	// Links[i][j] is the bandwidth class between devices i and j (0 unknown).
	Links [][]int
	Pools map[string]int64
	// Fake says that the capacity is declared.
	Fake bool
}

// Grant is the exact allocation of one item.
type Grant struct {
	ID        string
	CPUMilli  int64
	Memory    int64
	GPUs      []string
	Pools     map[string]int64
	HostPorts []int32
}

// Wait says why an item is not running, for the person who looks at it.
type Wait struct {
	ID     string
	Reason string // one word: InsufficientGPU, InsufficientCPU, Gang, Pool, Port …
	// Sentence: "waits for 2 GPUs: 1 of 8 is free, 7 are held by default/train-0 (5), default/nb-x (2)".
	Sentence string
}

// Decision is what one round came to. Waits holds every item still pending.
type Decision struct {
	Grants []Grant
	Waits  []Wait
}

// DefaultMaxWait is how long priority alone may hold an item back: six hours
// is a working day's rest on a workstation, and longer than most single steps.
const DefaultMaxWait = 6 * time.Hour

// Config is what a Scheduler is made of.
type Config struct {
	Node Node
	// MaxWait is the age from which an item goes first whatever its priority;
	// 0 means DefaultMaxWait.
	MaxWait time.Duration
}

// Snapshot is who holds what and who waits for what, for status displays.
type Snapshot struct {
	Node Node
	// Used is what all holders have together.
	UsedCPUMilli, UsedMemoryBytes int64
	UsedGPUs                      int
	UsedPools                     map[string]int64
	// Holders are sorted by name, then id.
	Holders []Holder
	// Queue is in the order of the last decision; its waits are that decision's.
	Queue []Queued
}

// Holder is an item that has its grant.
type Holder struct {
	Item  Item
	Grant Grant
}

// Queued is an item that waits.
type Queued struct {
	Item Item
	Wait Wait
}

// Reasons of a Wait.
const (
	WaitGPU           = "InsufficientGPU"
	WaitCPU           = "InsufficientCPU"
	WaitMemory        = "InsufficientMemory"
	WaitPool          = "Pool"
	WaitPort          = "Port"
	WaitGang          = "Gang"
	WaitReserved      = "Reserved"
	WaitUnsatisfiable = "Unsatisfiable"
)
