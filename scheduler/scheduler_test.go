package scheduler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func devices(n int) []Device {
	list := make([]Device, n)
	for i := range list {
		list[i] = Device{UUID: fmt.Sprintf("GPU-%d", i), Index: i, Healthy: true, NUMA: i * 2 / max(n, 1)}
	}
	return list
}

// switched is a machine where every pair of devices has the same link.
func switched(n int) Node {
	node := Node{CPUMilli: 64_000, MemoryBytes: 256 << 30, Devices: devices(n), Links: make([][]int, n), Pools: map[string]int64{"p": 4, "q": 2}}
	for i := range node.Links {
		node.Links[i] = make([]int, n)
		for j := range node.Links[i] {
			if i != j {
				node.Links[i][j] = 12
			}
		}
	}
	return node
}

func item(id string, at int, d Demand) Item {
	return Item{ID: id, Name: "default/" + id, Namespace: "default", Demand: d, Submitted: epoch.Add(time.Duration(at) * time.Second)}
}

func granted(d Decision) []string {
	ids := []string{}
	for _, g := range d.Grants {
		ids = append(ids, g.ID)
	}
	return ids
}

func sentenceOf(t *testing.T, d Decision, id string) string {
	t.Helper()
	for _, w := range d.Waits {
		if w.ID == id {
			return w.Reason + ": " + w.Sentence
		}
	}
	t.Fatalf("%s does not wait", id)
	return ""
}

func TestFits(t *testing.T) {
	node := Node{CPUMilli: 2000, MemoryBytes: 4 << 30, Devices: devices(1), Pools: map[string]int64{"p": 2}}
	tests := []struct {
		name   string
		demand Demand
		want   string
	}{
		{"nothing", Demand{}, ""},
		{"all", Demand{CPUMilli: 2000, MemoryBytes: 4 << 30, GPUs: 1, Pools: map[string]int64{"p": 2}, HostPorts: []int32{80}}, ""},
		{"cpu", Demand{CPUMilli: 16000}, "asks for 16 CPUs, the node has 2"},
		{"fractions", Demand{CPUMilli: 2500}, "asks for 2.5 CPUs, the node has 2"},
		{"memory", Demand{MemoryBytes: 16 << 30}, "asks for 16Gi of memory, the node has 4Gi"},
		{"gpus", Demand{GPUs: 8}, "asks for 8 GPUs, the node has 1"},
		{"kind", Demand{GPUs: 1, GPUKind: "mig-1g.5gb"}, "asks for 1 × mig-1g.5gb, the node has no device of that kind, only 1 whole GPU"},
		{"pool", Demand{Pools: map[string]int64{"p": 3}}, `asks for 3 of pool "p", the node has 2`},
		{"no pool", Demand{Pools: map[string]int64{"x": 1}}, `asks for 1 of pool "x", the node has no such pool`},
		{"port twice", Demand{HostPorts: []int32{80, 80}}, "asks for host port 80 twice"},
		{"two", Demand{CPUMilli: 3000, GPUs: 2}, "asks for 3 CPUs, the node has 2; asks for 2 GPUs, the node has 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Fits(node, tt.demand)
			if tt.want == "" {
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				return
			}
			if err == nil || err.Error() != tt.want || !errors.Is(err, ErrUnsatisfiable) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	s := New(Config{Node: Node{CPUMilli: 1000}, MaxWait: time.Hour})
	one := Demand{CPUMilli: 1000}
	for id, at := range map[string]int{"c": 30, "a": 10, "b": 10} {
		s.Submit(item(id, at, one))
	}
	urgent := item("u", 50, one)
	urgent.Priority = 5
	s.Submit(urgent)
	var order []string
	for range 4 {
		d := s.Decide(epoch.Add(time.Minute))
		order = append(order, granted(d)...)
		s.Release(d.Grants[0].ID)
	}
	if diff := cmp.Diff([]string{"u", "a", "b", "c"}, order); diff != "" {
		t.Error(diff)
	}
}

func TestAnOldItemGoesBeforePriority(t *testing.T) {
	s := New(Config{Node: Node{CPUMilli: 1000}, MaxWait: time.Hour})
	one := Demand{CPUMilli: 1000}
	s.Submit(item("old", 0, one))
	for i := range 5 {
		u := item(fmt.Sprintf("u%d", i), 60, one)
		u.Priority = 100
		s.Submit(u)
	}
	d := s.Decide(epoch.Add(59 * time.Minute))
	if diff := cmp.Diff([]string{"u0"}, granted(d)); diff != "" {
		t.Error(diff)
	}
	s.Release("u0")
	if diff := cmp.Diff([]string{"old"}, granted(s.Decide(epoch.Add(time.Hour)))); diff != "" {
		t.Error(diff)
	}
}

func TestSmallWorkDoesNotStarveABigJob(t *testing.T) {
	s := New(Config{Node: switched(8)})
	one := Demand{CPUMilli: 1000, GPUs: 1}
	for i := range 8 {
		s.Submit(item(fmt.Sprintf("first%d", i), 0, one))
	}
	if n := len(s.Decide(epoch).Grants); n != 8 {
		t.Fatalf("%d started", n)
	}
	s.Submit(item("big", 1, Demand{CPUMilli: 8000, GPUs: 6}))
	for i := range 20 {
		s.Submit(item(fmt.Sprintf("later%02d", i), 2, one))
	}
	// Two devices are never needed by the big one: two small ones pass. The
	// other six are kept as they come free.
	var passed []string
	for i := range 8 {
		s.Release(fmt.Sprintf("first%d", i))
		d := s.Decide(epoch.Add(3 * time.Second))
		passed = append(passed, granted(d)...)
		if i == 0 {
			want := "InsufficientGPU: waits for 6 GPUs: none of 8 is free, 8 are held by default/first1 (1), default/first2 (1), default/first3 (1) and 5 more"
			if got := sentenceOf(t, d, "big"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
		if i == 3 {
			want := "Reserved: waits for its turn behind default/big, which is first in line for 6 GPUs"
			if got := sentenceOf(t, d, "later05"); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		}
	}
	if diff := cmp.Diff([]string{"later00", "later01", "big"}, passed); diff != "" {
		t.Error(diff)
	}
}

func TestWorkThatABlockedHeadDoesNotNeedPasses(t *testing.T) {
	s := New(Config{Node: switched(8)})
	s.Submit(item("holder", 0, Demand{CPUMilli: 1000, GPUs: 8}))
	s.Decide(epoch)
	s.Submit(item("head", 1, Demand{CPUMilli: 4000, GPUs: 8}))
	for i := range 70 {
		s.Submit(item(fmt.Sprintf("cpu%02d", i), 2, Demand{CPUMilli: 1000}))
	}
	// 64 processors: one is held, four are kept for the head, which needs what
	// the holder has only when the holder has ended.
	d := s.Decide(epoch.Add(time.Minute))
	if n := len(d.Grants); n != 60 {
		t.Errorf("%d passed, want 60", n)
	}
	s.Release("holder")
	if diff := cmp.Diff([]string{"head"}, granted(s.Decide(epoch.Add(time.Hour)))); diff != "" {
		t.Error(diff)
	}
}

func TestPoolsAndPorts(t *testing.T) {
	s := New(Config{Node: switched(0)})
	pool := func(n int64) Demand { return Demand{CPUMilli: 100, Pools: map[string]int64{"p": n}} }
	s.Submit(item("a", 0, pool(3)))
	s.Submit(item("b", 1, pool(2)))
	s.Submit(item("c", 2, pool(1)))
	s.Submit(item("free", 3, Demand{CPUMilli: 100}))
	s.Submit(item("port1", 4, Demand{HostPorts: []int32{8080}}))
	s.Submit(item("port2", 5, Demand{HostPorts: []int32{8080}}))
	d := s.Decide(epoch)
	// c would fit, but a pool is strictly in order.
	if diff := cmp.Diff([]string{"a", "free", "port1"}, granted(d)); diff != "" {
		t.Error(diff)
	}
	for id, want := range map[string]string{
		"b":     `Pool: waits for 2 of pool "p": 1 of 4 is free, held by default/a (3)`,
		"c":     `Pool: waits for 1 of pool "p": 1 of 4 is free, held by default/a (3), kept for an earlier one in line`,
		"port2": "Port: waits for host port 8080, held by default/port1",
	} {
		if got := sentenceOf(t, d, id); got != want {
			t.Errorf("%s: got  %s\nwant %s", id, got, want)
		}
	}
	s.Release("a")
	if diff := cmp.Diff([]string{"b", "c"}, granted(s.Decide(epoch))); diff != "" {
		t.Error(diff)
	}
}

func TestGangIsAllOrNothing(t *testing.T) {
	s := New(Config{Node: switched(8)})
	s.Submit(item("holder", 0, Demand{GPUs: 5}))
	s.Decide(epoch)
	member := func(i int) Item {
		m := item(fmt.Sprintf("g%d", i), 1, Demand{GPUs: 2})
		m.Gang, m.GangSize = "team", 2
		return m
	}
	s.Submit(member(0))
	d := s.Decide(epoch)
	if got := sentenceOf(t, d, "g0"); got != `Gang: waits for its gang "team": 1 of 2 members are here` {
		t.Error(got)
	}
	s.Submit(member(1))
	d = s.Decide(epoch)
	if len(d.Grants) != 0 {
		t.Errorf("a part of the gang started: %v", granted(d))
	}
	want := `InsufficientGPU: waits with the rest of its gang "team" for 4 GPUs: 3 of 8 are free, 5 are held by default/holder (5)`
	if got := sentenceOf(t, d, "g1"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	s.Release("holder")
	if diff := cmp.Diff([]string{"g0", "g1"}, granted(s.Decide(epoch))); diff != "" {
		t.Error(diff)
	}
}

func TestPlacement(t *testing.T) {
	// A DGX-1: two quads, each fully linked, with faster links within pairs.
	quads := Node{Devices: devices(8), Links: make([][]int, 8)}
	for i := range 8 {
		quads.Links[i] = make([]int, 8)
		for j := range 8 {
			switch {
			case i == j:
			case i/2 == j/2:
				quads.Links[i][j] = 4
			case i/4 == j/4:
				quads.Links[i][j] = 2
			default:
				quads.Links[i][j] = 1
			}
		}
	}
	tests := []struct {
		name string
		node Node
		held []int
		want int
		got  []int
	}{
		{"a pair is a linked one", quads, nil, 2, []int{0, 1}},
		{"one breaks the broken pair", quads, []int{0}, 1, []int{1}},
		{"a pair leaves the whole quad", quads, []int{0, 1}, 2, []int{2, 3}},
		{"four are one quad", quads, []int{1}, 4, []int{4, 5, 6, 7}},
		{"three within a quad", quads, []int{4}, 3, []int{5, 6, 7}},
		{"all", quads, nil, 8, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"switched: one", switched(8), nil, 1, []int{0}},
		{"switched: pairs stay whole", switched(8), []int{0}, 2, []int{2, 3}},
		{"switched: one takes the odd one", switched(8), []int{2}, 1, []int{3}},
		{"switched: four on one node", switched(8), []int{0}, 4, []int{4, 5, 6, 7}},
		{"no links known", Node{Devices: devices(2)}, nil, 1, []int{0}},
		{"more than are placed", Node{Devices: devices(20)}, []int{0, 2}, 3, []int{1, 3, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Config{Node: tt.node})
			for _, i := range tt.held {
				s.owner[fmt.Sprintf("GPU-%d", i)] = "x"
			}
			var got []int
			for _, uuid := range s.chooseDevices(tt.want) {
				got = append(got, s.device[uuid])
			}
			if diff := cmp.Diff(tt.got, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSickDevicesGetNoNewWork(t *testing.T) {
	node := switched(2)
	s := New(Config{Node: node})
	s.Submit(item("a", 0, Demand{GPUs: 1}))
	s.Decide(epoch)
	node.Devices = slices.Clone(node.Devices)
	node.Devices[0].Healthy, node.Devices[1].Healthy = false, false
	s.SetNode(node)
	s.Submit(item("b", 1, Demand{GPUs: 1}))
	d := s.Decide(epoch)
	if len(d.Grants) != 0 {
		t.Fatalf("granted %v", granted(d))
	}
	want := "InsufficientGPU: waits for 1 GPU: none of 2 is free, 1 out of service, 1 is held by default/a (1)"
	if got := sentenceOf(t, d, "b"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if snap := s.Snapshot(); len(snap.Holders) != 1 || len(snap.Queue) != 1 || snap.UsedGPUs != 1 {
		t.Errorf("snapshot = %+v", snap)
	}
}

func TestAdoptReportsWhatIsHeldTwice(t *testing.T) {
	s := New(Config{Node: switched(2)})
	if err := s.Adopt(Grant{GPUs: []string{"GPU-0"}}, item("a", 0, Demand{})); err != nil {
		t.Fatal(err)
	}
	err := s.Adopt(Grant{GPUs: []string{"GPU-0"}}, item("b", 0, Demand{}))
	if err == nil || !strings.Contains(err.Error(), "held by default/a too") {
		t.Errorf("err = %v", err)
	}
}
