package scheduler

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// model is what a checker knows without looking into the scheduler: what was
// submitted, what was granted, and the node.
type model struct {
	node    Node
	pending map[string]Item
	held    map[string]Grant
	items   map[string]Item
	now     time.Time
	next    int
}

func drawDemand(t *rapid.T) Demand {
	d := Demand{
		CPUMilli:    int64(rapid.IntRange(0, 8).Draw(t, "cpu")) * 500,
		MemoryBytes: int64(rapid.IntRange(0, 4).Draw(t, "mem")) << 30,
		GPUs:        max(0, rapid.IntRange(-4, 5).Draw(t, "gpus")),
	}
	if rapid.IntRange(0, 3).Draw(t, "pooled") == 0 {
		d.Pools = map[string]int64{rapid.SampledFrom([]string{"p", "q"}).Draw(t, "pool"): int64(rapid.IntRange(1, 2).Draw(t, "units"))}
	}
	if rapid.IntRange(0, 6).Draw(t, "ported") == 0 {
		d.HostPorts = []int32{int32(rapid.IntRange(1, 2).Draw(t, "port"))}
	}
	return d
}

func drawNode(t *rapid.T) Node {
	node := switched(rapid.IntRange(0, 5).Draw(t, "devices"))
	node.CPUMilli = int64(rapid.IntRange(0, 8).Draw(t, "node cpu")) * 1000
	node.MemoryBytes = int64(rapid.IntRange(0, 8).Draw(t, "node mem")) << 30
	for i := range node.Devices {
		node.Devices[i].Healthy = rapid.IntRange(0, 4).Draw(t, "healthy") > 0
	}
	return node
}

// TestInvariants drives the scheduler with a random history and holds it to I1
// (no unit twice, nothing beyond capacity), I2 (claims survive a restart), I3
// (what fits and hurts nobody starts), I5 (same history, same decisions), I6
// (gangs whole), and to no free amount going negative when the node shrinks.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{node: drawNode(t), pending: map[string]Item{}, held: map[string]Grant{}, items: map[string]Item{}, now: epoch}
		s, twin := New(Config{Node: m.node, MaxWait: time.Hour}), New(Config{Node: m.node, MaxWait: time.Hour})
		both := func(fn func(*Scheduler)) { fn(s); fn(twin) }
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			m.now = m.now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "seconds")) * time.Second)
			switch rapid.SampledFrom([]string{"submit", "submit", "submit", "gang", "release", "release", "withdraw", "node", "restart"}).Draw(t, "step") {
			case "submit":
				it := m.newItem(t)
				both(func(s *Scheduler) { s.Submit(it) })
			case "gang":
				size := rapid.IntRange(1, 3).Draw(t, "size")
				name := fmt.Sprintf("gang%d", m.next)
				for range rapid.IntRange(1, 3).Draw(t, "members") {
					it := m.newItem(t)
					it.Gang, it.GangSize = name, size
					m.pending[it.ID], m.items[it.ID] = it, it
					both(func(s *Scheduler) { s.Submit(it) })
				}
			case "release":
				if id := m.drawID(t, sortedIDs(m.held)); id != "" {
					delete(m.held, id)
					both(func(s *Scheduler) { s.Release(id) })
				}
			case "withdraw":
				if id := m.drawID(t, sortedIDs(m.pending)); id != "" {
					delete(m.pending, id)
					both(func(s *Scheduler) { s.Withdraw(id) })
				}
			case "node":
				m.node = drawNode(t)
				both(func(s *Scheduler) { s.SetNode(m.node) })
			case "restart":
				s, twin = m.restarted(t), m.restarted(t)
			}
			m.decide(t, s, twin)
		}
	})
}

func (m *model) newItem(t *rapid.T) Item {
	m.next++
	it := item(fmt.Sprintf("i%03d", m.next), 0, drawDemand(t))
	it.Submitted = m.now
	it.Priority = int32(rapid.IntRange(0, 2).Draw(t, "priority"))
	m.pending[it.ID], m.items[it.ID] = it, it
	return it
}

func (m *model) drawID(t *rapid.T, ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return rapid.SampledFrom(ids).Draw(t, "id")
}

func sortedIDs[V any](set map[string]V) []string {
	var ids []string
	for id := range set {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// restarted is a scheduler made from what is durable: claims, after a round
// trip through JSON, and pods that wait.
func (m *model) restarted(t *rapid.T) *Scheduler {
	s := New(Config{Node: m.node, MaxWait: time.Hour})
	for _, id := range sortedIDs(m.held) {
		text, err := json.Marshal(m.held[id])
		if err != nil {
			t.Fatal(err)
		}
		var g Grant
		if err := json.Unmarshal(text, &g); err != nil {
			t.Fatal(err)
		}
		if err := s.Adopt(g, m.items[id]); err != nil {
			t.Fatalf("adopt %s: %v", id, err)
		}
	}
	for _, h := range s.Snapshot().Holders { // I2
		if diff := gocmp.Diff(m.held[h.Grant.ID], h.Grant); diff != "" {
			t.Fatalf("the claim of %s did not survive:\n%s", h.Grant.ID, diff)
		}
	}
	for _, id := range sortedIDs(m.pending) {
		s.Submit(m.pending[id])
	}
	return s
}

func (m *model) decide(t *rapid.T, s, twin *Scheduler) {
	d := s.Decide(m.now)
	if diff := gocmp.Diff(d, twin.Decide(m.now)); diff != "" { // I5
		t.Fatalf("two schedulers of one history differ:\n%s", diff)
	}
	gangs := map[string]bool{}
	for _, g := range d.Grants {
		it, waited := m.pending[g.ID]
		if !waited {
			t.Fatalf("%s was granted and did not wait", g.ID)
		}
		if g.CPUMilli != it.Demand.CPUMilli || g.Memory != it.Demand.MemoryBytes || len(g.GPUs) != it.Demand.GPUs {
			t.Fatalf("%s asked for %+v and got %+v", g.ID, it.Demand, g)
		}
		delete(m.pending, g.ID)
		m.held[g.ID] = g
		if it.Gang != "" {
			gangs[it.Gang] = true
		}
	}
	for id, it := range m.pending { // I6
		if it.Gang != "" && gangs[it.Gang] {
			t.Fatalf("gang %s was admitted without its member %s", it.Gang, id)
		}
	}
	if len(d.Waits) != len(m.pending) {
		t.Fatalf("%d waits for %d pending", len(d.Waits), len(m.pending))
	}
	for _, w := range d.Waits {
		if w.Sentence == "" || w.Reason == "" {
			t.Fatalf("%s waits and does not say why", w.ID)
		}
	}
	if len(d.Grants) > 0 {
		m.capacity(t)
	}
	m.conserving(t, s, d)
	if again := s.Decide(m.now); len(again.Grants) != 0 {
		t.Fatalf("a second look granted %v", granted(again))
	}
	twin.Decide(m.now)
}

// free is what the model computes to be free, per dimension.
func (m *model) free() (cpu, mem int64, gpus int, pools map[string]int64, ports map[int32]bool) {
	cpu, mem = m.node.CPUMilli, m.node.MemoryBytes
	taken := map[string]bool{}
	pools, ports = map[string]int64{}, map[int32]bool{}
	maps.Copy(pools, m.node.Pools)
	for _, g := range m.held {
		cpu, mem = cpu-g.CPUMilli, mem-g.Memory
		for _, uuid := range g.GPUs {
			taken[uuid] = true
		}
		for name, n := range g.Pools {
			pools[name] -= n
		}
		for _, p := range g.HostPorts {
			ports[p] = true
		}
	}
	for _, d := range m.node.Devices {
		if d.Healthy && !taken[d.UUID] {
			gpus++
		}
	}
	return cpu, mem, gpus, pools, ports
}

// capacity is I1, after a decision that granted something: whatever is asked
// for at all is within capacity, even where the node shrank before.
func (m *model) capacity(t *rapid.T) {
	owners, ports := map[string]string{}, map[int32]string{}
	for _, id := range sortedIDs(m.held) {
		for _, uuid := range m.held[id].GPUs {
			if other, taken := owners[uuid]; taken {
				t.Fatalf("device %s is held by %s and %s", uuid, other, id)
			}
			owners[uuid] = id
		}
		for _, p := range m.held[id].HostPorts {
			if other, taken := ports[p]; taken {
				t.Fatalf("port %d is held by %s and %s", p, other, id)
			}
			ports[p] = id
		}
	}
}

// conserving is I3 by brute force: an item that fits what is free stays pending
// only for a reason that the rules name, and what is granted was really free.
func (m *model) conserving(t *rapid.T, s *Scheduler, d Decision) {
	cpu, mem, gpus, pools, ports := m.free()
	for _, w := range d.Waits {
		it := m.pending[w.ID]
		fits := it.Gang == "" && (it.Demand.CPUMilli == 0 || it.Demand.CPUMilli <= cpu) &&
			(it.Demand.MemoryBytes == 0 || it.Demand.MemoryBytes <= mem) && it.Demand.GPUs <= gpus
		for name, n := range it.Demand.Pools {
			fits = fits && n <= pools[name]
		}
		for _, p := range it.Demand.HostPorts {
			fits = fits && !ports[p]
		}
		if !fits || Fits(m.node, it.Demand) != nil {
			continue
		}
		if !m.excused(s, it, w) {
			t.Fatalf("%s fits and waits: %s (%s)", it.ID, w.Sentence, w.Reason)
		}
	}
	if len(d.Grants) == 0 {
		return
	}
	for _, g := range d.Grants {
		if (g.CPUMilli > 0 && cpu < 0) || (g.Memory > 0 && mem < 0) {
			t.Fatalf("%s was granted beyond capacity: %d mCPU, %d bytes free", g.ID, cpu, mem)
		}
		for name := range g.Pools {
			if pools[name] < 0 {
				t.Fatalf("%s was granted beyond pool %s", g.ID, name)
			}
		}
		for _, uuid := range g.GPUs {
			if i, known := s.device[uuid]; !known || !m.node.Devices[i].Healthy {
				t.Fatalf("%s was granted %s, which is not fit for work", g.ID, uuid)
			}
		}
	}
}

// excused checks that somebody stands before the item whom it would delay.
func (m *model) excused(s *Scheduler, it Item, w Wait) bool {
	for _, q := range s.queue {
		if q.ID == it.ID {
			return false
		}
		if q.gone {
			continue
		}
		before := q.Demand
		for name := range before.Pools {
			if it.Demand.Pools[name] > 0 && w.Reason == WaitPool {
				return true
			}
		}
		for _, p := range before.HostPorts {
			if slices.Contains(it.Demand.HostPorts, p) {
				return true
			}
		}
		if w.Reason != WaitReserved {
			continue
		}
		// The head, what has passed it and the item are too much together. What
		// has passed is at most all that is held.
		sum := vector{before.CPUMilli + it.Demand.CPUMilli, before.MemoryBytes + it.Demand.MemoryBytes, before.GPUs + it.Demand.GPUs}
		for _, other := range s.queue {
			if q.Gang != "" && other.Gang == q.Gang && other.ID != q.ID {
				sum = sum.plus(vector{other.Demand.CPUMilli, other.Demand.MemoryBytes, other.Demand.GPUs})
			}
		}
		for _, g := range m.held {
			sum = sum.plus(vector{g.CPUMilli, g.Memory, len(g.GPUs)})
		}
		if sum.cpu > m.node.CPUMilli || sum.mem > m.node.MemoryBytes || sum.gpus > s.healthyDevices() {
			return true
		}
	}
	return false
}

// TestNoStarvation: under any stream of later arrivals, whatever their
// priority, an item starts once it is old and the work that ran then has ended.
func TestNoStarvation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		node := switched(rapid.IntRange(1, 6).Draw(t, "devices"))
		node.CPUMilli, node.MemoryBytes = 8000, 8<<30
		s := New(Config{Node: node, MaxWait: time.Hour})
		ends := map[string]int{} // item → the round in which it ends
		round, next := 0, 0
		submit := func(d Demand, priority int32) string {
			next++
			it := item(fmt.Sprintf("i%05d", next), round*600, d)
			it.Priority = priority
			s.Submit(it)
			return it.ID
		}
		advance := func() {
			for _, id := range sortedIDs(ends) {
				if ends[id] <= round {
					delete(ends, id)
					s.Release(id)
				}
			}
			for _, g := range s.Decide(epoch.Add(time.Duration(round) * 600 * time.Second)).Grants {
				ends[g.ID] = round + rapid.IntRange(1, 5).Draw(t, "length")
			}
			round++
		}
		crowd := func() {
			for range rapid.IntRange(1, 4).Draw(t, "crowd") {
				if d := drawDemand(t); Fits(node, d) == nil {
					submit(d, int32(rapid.IntRange(0, 9).Draw(t, "priority")))
				}
			}
		}
		for range rapid.IntRange(0, 5).Draw(t, "before") {
			crowd()
			advance()
		}
		victim := drawDemand(t)
		if Fits(node, victim) != nil {
			return
		}
		id := submit(victim, -5)
		queued := len(s.queue)
		// Six rounds make an hour. After that only those that were there before
		// stand before the victim, and each of them starts within the length of
		// what runs when it comes first.
		bound := round + 6 + (queued+1)*2*5
		for s.held[id] == nil {
			if _, waits := s.pending[id]; !waits && ends[id] == 0 {
				return // started and ended
			}
			if round > bound {
				t.Fatalf("waits after %d rounds: %+v", round, s.Snapshot().Queue[0])
			}
			crowd()
			advance()
		}
	})
}

// TestPlacementIsOptimal compares the choice with all sets by hand.
func TestPlacementIsOptimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "devices")
		node := Node{Devices: devices(n), Links: make([][]int, n)}
		for i := range n {
			node.Links[i] = make([]int, n)
		}
		for i := range n {
			for j := range i {
				l := rapid.IntRange(0, 3).Draw(t, "link")
				node.Links[i][j], node.Links[j][i] = l, l
			}
		}
		s := New(Config{Node: node})
		free := rapid.IntRange(1, 1<<n-1).Draw(t, "free")
		count := 0
		for i := range n {
			if free&(1<<i) == 0 {
				s.owner[node.Devices[i].UUID] = "x"
			} else {
				count++
			}
		}
		k := rapid.IntRange(1, count).Draw(t, "k")
		chosen := 0
		for _, uuid := range s.chooseDevices(k) {
			chosen |= 1 << s.device[uuid]
		}
		score := func(m int) (low, sum int) {
			low = 99
			for i := range n {
				for j := range i {
					if m&(1<<i) != 0 && m&(1<<j) != 0 {
						low, sum = min(low, node.Links[i][j]), sum+node.Links[i][j]
					}
				}
			}
			return low, sum
		}
		low, sum := score(chosen)
		if chosen&^free != 0 || popcount(chosen) != k {
			t.Fatalf("chose %b of %b", chosen, free)
		}
		for m := range 1 << n {
			if m&^free != 0 || popcount(m) != k {
				continue
			}
			if l, sm := score(m); cmp.Or(cmp.Compare(l, low), cmp.Compare(sm, sum)) > 0 {
				t.Fatalf("chose %b (%d, %d), %b has (%d, %d)", chosen, low, sum, m, l, sm)
			}
		}
	})
}

func popcount(m int) int {
	n := 0
	for ; m != 0; m &= m - 1 {
		n++
	}
	return n
}

// BenchmarkDecide is the promise that ten thousand waiting pods on sixteen
// devices cost a decision less than 5 ms.
func BenchmarkDecide(b *testing.B) {
	for _, shape := range []string{"same", "different"} {
		b.Run(shape, func(b *testing.B) {
			s := New(Config{Node: switched(16)})
			s.Submit(item("holder", 0, Demand{CPUMilli: 60_000, GPUs: 15}))
			s.Decide(epoch)
			for i := range 10_000 {
				d := Demand{CPUMilli: 5000, MemoryBytes: 1 << 30, GPUs: 2}
				if shape == "different" {
					d = Demand{CPUMilli: 5000 + int64(i), MemoryBytes: 1<<30 + int64(i), GPUs: i % 16, Pools: map[string]int64{"p": 1}}
				}
				s.Submit(item(fmt.Sprintf("i%05d", i), i, d))
			}
			s.Decide(epoch)
			b.ReportAllocs()
			for b.Loop() {
				if d := s.Decide(epoch.Add(time.Hour)); len(d.Waits) < 9000 {
					b.Fatalf("%d wait", len(d.Waits))
				}
			}
		})
	}
}

// BenchmarkPlacement chooses eight of sixteen free devices.
func BenchmarkPlacement(b *testing.B) {
	s := New(Config{Node: switched(16)})
	s.chooseDevices(1)
	for b.Loop() {
		s.chooseDevices(8)
	}
}
