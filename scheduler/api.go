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
