package view

import (
	"time"

	"github.com/skiff-ml/skiff/api/core"
)

// Node is the one document about the machine and the daemon on it.
type Node struct {
	Version  string    `json:"version"`
	StoreID  string    `json:"store_id"`
	StateDir string    `json:"state_dir"`
	Started  time.Time `json:"started"`
	// Embedded is true for a daemon inside "skiff run", which ends with it.
	Embedded bool `json:"embedded"`
	// Runtime is the backend in use; empty while it is being probed.
	Runtime   string     `json:"runtime"`
	Isolation string     `json:"isolation,omitempty"`
	Capacity  Resources  `json:"capacity"`
	Claimed   Resources  `json:"claimed"`
	Devices   []Device   `json:"devices"`
	Fake      bool       `json:"fake"`
	Backends  []Backend  `json:"backends"`
	Disk      Disk       `json:"disk"`
	Notes     []string   `json:"notes,omitempty"`
	Store     StoreStats `json:"store"`
	// Conditions are what is wrong or was found out, each with a next step.
	Conditions []core.Condition `json:"conditions,omitempty"`
}

// Resources are amounts of the node.
type Resources struct {
	CPUMilli    int64 `json:"cpu_milli"`
	MemoryBytes int64 `json:"memory_bytes"`
	GPUs        int   `json:"gpus"`
}

// Device is one accelerator.
type Device struct {
	UUID        string `json:"uuid"`
	Index       int    `json:"index"`
	Model       string `json:"model"`
	MemoryBytes int64  `json:"memory_bytes"`
	Healthy     bool   `json:"healthy"`
	Fake        bool   `json:"fake"`
	// HeldBy is "namespace/name" of the pod with a claim on it.
	HeldBy string `json:"held_by,omitempty"`
}

// Backend is what one runtime backend found it can do.
type Backend struct {
	Name      string   `json:"name"`
	Usable    bool     `json:"usable"`
	Selected  bool     `json:"selected"`
	Version   string   `json:"version,omitempty"`
	Images    bool     `json:"images"`
	Isolation string   `json:"isolation,omitempty"`
	Limits    bool     `json:"limits"`
	Mounts    bool     `json:"mounts"`
	GPU       string   `json:"gpu,omitempty"`
	Error     string   `json:"error,omitempty"`
	Notes     []string `json:"notes,omitempty"`
}

// Disk is the file system of the state folder.
type Disk struct {
	TotalBytes int64 `json:"total_bytes"`
	FreeBytes  int64 `json:"free_bytes"`
}

// StoreStats say how the store stands.
type StoreStats struct {
	Revision uint64 `json:"revision"`
}

// Usage is what a pod uses at one moment.
type Usage struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Run       string `json:"run,omitempty"`
	Task      string `json:"task,omitempty"`
	// At is when the numbers were read; CPUNanos processor time since the start.
	At          time.Time `json:"at"`
	CPUNanos    int64     `json:"cpu_nanos"`
	MemoryBytes int64     `json:"memory_bytes"`
	Pids        int64     `json:"pids"`
	// Claim is what the scheduler granted.
	Claim Resources `json:"claim"`
	GPUs  []string  `json:"gpus,omitempty"`
	Fake  bool      `json:"fake"`
}

// Check is one line of "skiff doctor".
type Check struct {
	Name string `json:"name"`
	// Status is ok, note, warning or missing.
	Status string `json:"status"`
	// Found says what there is, Fix what to do where something is missing.
	Found string `json:"found"`
	Fix   string `json:"fix,omitempty"`
}

// Statuses of a Check.
const (
	CheckOK      = "ok"
	CheckNote    = "note"
	CheckWarning = "warning"
	CheckMissing = "missing"
)
