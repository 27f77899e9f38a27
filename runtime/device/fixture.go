package device

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/problem"
)

// Fields of a declaration and of one device in it, in the order of docs/gpu.md.
var (
	fixtureFields = []string{"name", "about", "driver", "cuda", "gpus", "links"}
	gpuFields     = []string{"uuid", "model", "memory", "pci", "numa", "cpuAffinity", "mig", "computeCapability", "health"}
)

var (
	namePattern       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	uuidPattern       = regexp.MustCompile(`^` + FakePrefix + `[A-Za-z0-9-]{1,64}$`)
	pciPattern        = regexp.MustCompile(`^([0-9a-f]{4}){1,2}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	capabilityPattern = regexp.MustCompile(`^[0-9]{1,2}\.[0-9]$`)
	cpuListPattern    = regexp.MustCompile(`^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$`)
)

// maxDeviceMemory is 64 TiB: no device comes near, and sums stay far from overflow.
const maxDeviceMemory = 64 << 40

// parseFake reads a declaration. Every problem is reported, with its path.
func parseFake(data []byte, origin string) (Inventory, error) {
	// YAML is read as well, and a key that is given twice is refused.
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return Inventory{}, problem.List{{Op: "parse fake GPUs", Object: origin, Err: err}}
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		return Inventory{}, problem.List{{Op: "parse fake GPUs", Object: origin, Err: err}}
	}
	r := &fixtureReader{}
	v := r.inventory(doc)
	for _, p := range r.problems {
		p.Op, p.Object = "parse fake GPUs", origin
	}
	if err := r.problems.OrNil(); err != nil {
		return Inventory{}, err
	}
	if err := v.Check(); err != nil {
		return Inventory{}, problem.List{{Op: "parse fake GPUs", Object: origin, Err: err}}
	}
	return v, nil
}

// fixtureReader walks a decoded document and gathers what is wrong with it.
type fixtureReader struct{ problems problem.List }

func (r *fixtureReader) inventory(doc any) Inventory {
	top := r.object("", doc, fixtureFields)
	v := Inventory{Fake: true, Devices: []Device{}}
	name := r.text("name", top["name"], namePattern, "lower-case letters, digits and dashes")
	if _, given := top["name"]; !given && top != nil {
		r.bad("name", "is required: lower-case letters, digits and dashes; it names the devices")
	}
	v.Source = "fake " + name
	v.Driver = r.text("driver", top["driver"], nil, "")
	v.CUDA = r.text("cuda", top["cuda"], nil, "")
	r.text("about", top["about"], nil, "")

	list := r.list("gpus", top["gpus"])
	if len(list) == 0 && top != nil {
		r.bad("gpus", "needs at least one device")
	}
	if len(list) > MaxDevices {
		r.bad("gpus", "%d devices are more than %d", len(list), MaxDevices)
		return v
	}
	for i, item := range list {
		v.Devices = append(v.Devices, r.device(fmt.Sprintf("gpus[%d]", i), item, i, name))
	}
	r.distinct(v.Devices)
	if rows, given := top["links"]; given {
		v.Links = r.links(rows, len(v.Devices))
	}
	v.Notes = []string{fmt.Sprintf("The GPUs are declared (%s); no such hardware exists, and programs that open a device will fail.", v.Source)}
	return v
}

func (r *fixtureReader) device(at string, item any, index int, name string) Device {
	o := r.object(at, item, gpuFields)
	d := Device{Index: index, Minor: -1, Fake: true, Health: Healthy, NUMA: UnknownNUMA, MIG: MIGUnsupported}
	d.UUID = fmt.Sprintf("%s%s-%d", FakePrefix, name, index)
	if u, given := o["uuid"]; given {
		d.UUID = r.text(at+".uuid", u, uuidPattern, FakePrefix+"… (letters, digits, dashes): a declared device must not pass for a real one")
	}
	d.Model = r.text(at+".model", o["model"], nil, "")
	if d.Model == "" && o != nil {
		r.bad(at+".model", "is required, such as \"NVIDIA A100-SXM4-40GB\"")
	}
	d.MemoryBytes = r.memory(at+".memory", o)
	d.PCIBusID = r.text(at+".pci", o["pci"], pciPattern, "a bus id such as 00000000:07:00.0, in lower case")
	d.CPUAffinity = r.text(at+".cpuAffinity", o["cpuAffinity"], cpuListPattern, "a CPU list such as 0-15,64-79")
	d.ComputeCapability = r.text(at+".computeCapability", o["computeCapability"], capabilityPattern, "a version such as 8.0")
	if n, given := o["numa"]; given {
		d.NUMA = r.number(at+".numa", n, UnknownNUMA, 1023)
	}
	if m, given := o["mig"]; given {
		d.MIG = MIGMode(r.word(at+".mig", m, string(MIGUnsupported), string(MIGDisabled), string(MIGEnabled)))
	}
	if h, given := o["health"]; given {
		d.Health = Health(r.word(at+".health", h, string(Healthy), string(Suspect), string(Unhealthy), string(Unknown)))
	}
	if d.Health != Healthy {
		d.HealthReason = "declared so"
	}
	return d
}

// memory reads an amount such as "40Gi".
func (r *fixtureReader) memory(at string, o map[string]any) int64 {
	text := r.text(at, o["memory"], nil, "")
	if text == "" {
		if o != nil {
			r.bad(at, "is required, such as \"40Gi\"")
		}
		return 0
	}
	q, err := core.ParseQuantity(text)
	if err != nil {
		r.bad(at, "%w", err)
		return 0
	}
	size := q.Value()
	if size < 1 || size > maxDeviceMemory {
		r.bad(at, "%q: want between 1 byte and 64Ti", text)
		return 0
	}
	return size
}

func (r *fixtureReader) links(value any, n int) [][]Link {
	rows := r.list("links", value)
	if len(rows) != n {
		r.bad("links", "%d rows for %d devices", len(rows), n)
		return nil
	}
	links := make([][]Link, n)
	for i, row := range rows {
		at := fmt.Sprintf("links[%d]", i)
		cells := r.list(at, row)
		if len(cells) != n {
			r.bad(at, "%d columns for %d devices", len(cells), n)
			return nil
		}
		for j, cell := range cells {
			at := fmt.Sprintf("links[%d][%d]", i, j)
			l, err := ParseLink(r.text(at, cell, nil, ""))
			if err != nil {
				r.bad(at, "%w", err)
				return nil
			}
			links[i] = append(links[i], l)
			switch {
			case (i == j) != (l.Kind == LinkSelf):
				r.bad(at, "X stands on the diagonal and only there, not %s", l)
			case j < i && l != links[j][i]:
				r.bad(at, "%s, but links[%d][%d] says %s: the matrix must be symmetric", l, j, i, links[j][i])
			}
		}
	}
	return links
}

// distinct refuses two devices of one name or in one slot.
func (r *fixtureReader) distinct(devices []Device) {
	uuids, slots := map[string]int{}, map[string]int{}
	for i, d := range devices {
		if first, dup := uuids[d.UUID]; dup && d.UUID != "" {
			r.bad(fmt.Sprintf("gpus[%d].uuid", i), "%s is also gpus[%d]", d.UUID, first)
		}
		uuids[d.UUID] = i
		if first, dup := slots[d.PCIBusID]; dup && d.PCIBusID != "" {
			r.bad(fmt.Sprintf("gpus[%d].pci", i), "%s is also gpus[%d]", d.PCIBusID, first)
		}
		slots[d.PCIBusID] = i
	}
}

// bad notes one problem.
func (r *fixtureReader) bad(at, format string, args ...any) { _ = r.problems.Add(at, format, args...) }

func (r *fixtureReader) object(at string, value any, known []string) map[string]any {
	o, ok := value.(map[string]any)
	if !ok {
		r.bad(at, "want an object, not %s", kindOf(value))
		return nil
	}
	var unknown []string
	for k := range o {
		if !slices.Contains(known, k) {
			unknown = append(unknown, k)
		}
	}
	slices.Sort(unknown)
	for _, k := range unknown {
		r.bad(strings.TrimPrefix(at+"."+k, "."), "unknown field; known are %s", strings.Join(known, ", "))
	}
	return o
}

func (r *fixtureReader) list(at string, value any) []any {
	l, ok := value.([]any)
	if !ok && value != nil {
		r.bad(at, "want a list, not %s", kindOf(value))
	}
	return l
}

// text reads a string that may be absent.
func (r *fixtureReader) text(at string, value any, pattern *regexp.Regexp, want string) string {
	s, ok := value.(string)
	switch {
	case value == nil:
		return ""
	case !ok:
		r.bad(at, "want a string, not %s", kindOf(value))
		return ""
	case len(s) > 256 || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
		r.bad(at, "want at most 256 printable characters")
		return ""
	case pattern != nil && !pattern.MatchString(s):
		r.bad(at, "%q: want %s", s, want)
		return ""
	}
	return s
}

func (r *fixtureReader) word(at string, value any, known ...string) string {
	s, ok := value.(string)
	if !ok || !slices.Contains(known, s) {
		r.bad(at, "%v: want one of %s", value, strings.Join(known, ", "))
		return known[0]
	}
	return s
}

func (r *fixtureReader) number(at string, value any, low, high int) int {
	f, ok := value.(float64)
	if !ok || f != math.Trunc(f) || f < float64(low) || f > float64(high) {
		r.bad(at, "%v: want a whole number from %d to %d", value, low, high)
		return low
	}
	return int(f)
}

func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return "a string"
	case bool:
		return "true or false"
	case float64:
		return "the number " + strconv.FormatFloat(v, 'g', -1, 64)
	}
	return fmt.Sprintf("%T", value)
}
