package kfp

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/skiff-ml/skiff/api/core"
)

// Dynamic reports whether what is asked for depends on inputs, so that it is
// known only when the task starts.
func (r *ResourceSpec) Dynamic() bool {
	if r == nil {
		return false
	}
	texts := []string{r.ResourceCPULimit, r.ResourceMemoryLimit, r.ResourceCPURequest, r.ResourceMemoryRequest}
	if a := r.Accelerator; a != nil {
		texts = append(texts, a.Type, a.ResourceType, a.ResourceCount)
	}
	for _, text := range texts {
		if strings.Contains(text, "{{$") {
			return true
		}
	}
	return false
}

// Requirements are the resources as a pod asks for them. resolve replaces the
// placeholders of a text. A text that resolves to nothing, or to the null of an
// absent input, asks for nothing.
func (r *ResourceSpec) Requirements(resolve func(string) (string, error)) (core.ResourceRequirements, error) {
	out := core.ResourceRequirements{}
	if r == nil {
		return out, nil
	}
	limits, requests := map[string]core.Quantity{}, map[string]core.Quantity{}
	for _, entry := range []struct {
		field  string // of the text
		plain  string // of the number
		text   string
		number float64
		unit   string
		name   string
		into   map[string]core.Quantity
	}{
		{"resourceCpuLimit", "cpuLimit", r.ResourceCPULimit, r.CPULimit, "", core.ResourceCPU, limits},
		{"resourceMemoryLimit", "memoryLimit", r.ResourceMemoryLimit, r.MemoryLimit, "G", core.ResourceMemory, limits},
		{"resourceCpuRequest", "cpuRequest", r.ResourceCPURequest, r.CPURequest, "", core.ResourceCPU, requests},
		{"resourceMemoryRequest", "memoryRequest", r.ResourceMemoryRequest, r.MemoryRequest, "G", core.ResourceMemory, requests},
	} {
		text, err := resolve(entry.text)
		if err != nil {
			return out, fmt.Errorf("%s: %w", entry.field, err)
		}
		if absent(text) && entry.number != 0 {
			if entry.number < 0 || math.IsNaN(entry.number) || entry.number > 1e15 {
				return out, fmt.Errorf("%s: %s is not an amount", entry.plain, NumberText(entry.number))
			}
			text = strconv.FormatFloat(entry.number, 'f', -1, 64) + entry.unit
		}
		if absent(text) {
			continue
		}
		quantity, err := core.ParseQuantity(text)
		if err != nil {
			return out, fmt.Errorf("%s: %w", entry.field, err)
		}
		entry.into[entry.name] = quantity
	}
	if err := r.Accelerator.add(limits, resolve); err != nil {
		return out, fmt.Errorf("accelerator: %w", err)
	}
	if len(limits) > 0 {
		out.Limits = limits
	}
	if len(requests) > 0 {
		out.Requests = requests
	}
	return out, nil
}

func absent(text string) bool { return text == "" || text == "null" }

// add puts the devices asked for into limits.
func (a *AcceleratorConfig) add(limits map[string]core.Quantity, resolve func(string) (string, error)) error {
	if a == nil {
		return nil
	}
	sort, err := resolve(a.ResourceType)
	if err == nil && absent(sort) {
		sort, err = resolve(a.Type)
	}
	if err != nil {
		return fmt.Errorf("resourceType: %w", err)
	}
	text, err := resolve(a.ResourceCount)
	if err != nil {
		return fmt.Errorf("resourceCount: %w", err)
	}
	count := a.Count
	if !absent(text) {
		if count, err = strconv.ParseInt(text, 10, 64); err != nil {
			return fmt.Errorf("resourceCount: want a whole number, got %q", clip(text, 40))
		}
	}
	switch {
	case count < 0:
		return fmt.Errorf("resourceCount: must not be negative, got %d", count)
	case count == 0:
		return nil
	}
	// A type without a vendor ("NVIDIA_TESLA_P4") is a cloud's name for a
	// device model; here it means any GPU.
	if !strings.Contains(sort, "/") {
		sort = core.ResourceGPU
	}
	limits[sort] = core.NewQuantity(count)
	return nil
}
