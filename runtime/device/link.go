package device

import (
	"fmt"
	"strconv"
	"strings"
)

// Link is how two devices reach each other, in the words of nvidia-smi's
// topology matrix.
type Link struct {
	Kind LinkKind
	// Lanes is how many NVLinks join the two, for LinkNVLink.
	Lanes int
}

// LinkKind is the closest road between two devices.
type LinkKind string

// The kinds, from the same device to the farthest.
const (
	LinkUnknown LinkKind = "?"
	LinkSelf    LinkKind = "X"
	LinkNVLink  LinkKind = "NV"
	LinkPIX     LinkKind = "PIX"  // at most one PCIe bridge
	LinkPXB     LinkKind = "PXB"  // several PCIe bridges
	LinkPHB     LinkKind = "PHB"  // a PCIe host bridge
	LinkNode    LinkKind = "NODE" // between host bridges of one NUMA node
	LinkSystem  LinkKind = "SYS"  // across NUMA nodes
)

// maxLanes is above the 18 NVLinks of the widest device known.
const maxLanes = 36

// pcieClass orders the roads without NVLink.
var pcieClass = map[LinkKind]int{LinkSystem: 10, LinkNode: 20, LinkPHB: 30, LinkPXB: 40, LinkPIX: 50}

// Class is a number that grows with the bandwidth: 0 unknown (and for a device
// with itself), 10 across NUMA nodes … 50 behind one PCIe bridge, and 100 for
// each NVLink. Only its order and its sums mean anything.
func (l Link) Class() int {
	if l.Kind == LinkNVLink {
		return 100 * l.Lanes
	}
	return pcieClass[l.Kind]
}

// String is nvidia-smi's notation: "X", "NV12", "PIX", "SYS", "?".
func (l Link) String() string {
	switch l.Kind {
	case LinkNVLink:
		return "NV" + strconv.Itoa(l.Lanes)
	case "":
		return string(LinkUnknown)
	default:
		return string(l.Kind)
	}
}

// MarshalText writes String.
func (l Link) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what ParseLink reads.
func (l *Link) UnmarshalText(text []byte) error {
	parsed, err := ParseLink(string(text))
	if err == nil {
		*l = parsed
	}
	return err
}

// ParseLink reads nvidia-smi's notation.
func ParseLink(text string) (Link, error) {
	if lanes, ok := strings.CutPrefix(text, string(LinkNVLink)); ok {
		n, err := strconv.Atoi(lanes)
		if err != nil || n < 1 || n > maxLanes || lanes != strconv.Itoa(n) {
			return Link{}, fmt.Errorf("link %q: want NV1 to NV%d", text, maxLanes)
		}
		return Link{Kind: LinkNVLink, Lanes: n}, nil
	}
	kind := LinkKind(text)
	if _, pcie := pcieClass[kind]; pcie || kind == LinkSelf || kind == LinkUnknown {
		return Link{Kind: kind}, nil
	}
	return Link{}, fmt.Errorf("link %q: want X, NV1 … NV%d, PIX, PXB, PHB, NODE, SYS or ?", text, maxLanes)
}

// checkLinks holds a matrix over n devices to be square and symmetric, with X
// on the diagonal and nowhere else. nil is an unknown topology.
func checkLinks(links [][]Link, n int) error {
	if links == nil {
		return nil
	}
	if len(links) != n {
		return fmt.Errorf("links: %d rows for %d devices", len(links), n)
	}
	for i, row := range links {
		if len(row) != n {
			return fmt.Errorf("links[%d]: %d columns for %d devices", i, len(row), n)
		}
		for j, l := range row {
			switch {
			case (i == j) != (l.Kind == LinkSelf):
				return fmt.Errorf("links[%d][%d]: X stands on the diagonal and only there, not %s", i, j, l)
			case j < i && l != links[j][i]:
				return fmt.Errorf("links[%d][%d]: %s, but links[%d][%d] says %s", i, j, l, j, i, links[j][i])
			}
		}
	}
	return nil
}
