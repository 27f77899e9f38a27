package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Scheduler holds the queue and the claims. It is not safe for concurrent use:
// it has one owner, which calls it from one goroutine.
type Scheduler struct {
	maxWait time.Duration
	node    Node
	device  map[string]int // UUID → position in node.Devices
	// generation counts SetNode, for what is remembered about a node.
	generation int
	place      *placer // made when the first devices are placed

	queue   []*entry // in the order of the last decision, new ones at the end
	pending map[string]*entry
	held    map[string]*Holder

	usedCPU, usedMem int64
	usedPools        map[string]int64
	owner            map[string]string // device UUID → holder's id
	ports            map[int32]string  // host port → holder's id
	gangHeld         map[gangKey]int

	heads [classes]head
}

// entry is a pending item. wait is the verdict of the last decision.
type entry struct {
	Item
	wait    verdict
	gone    bool // withdrawn or granted; dropped from the queue by the next decision
	visited bool // this decision has dealt with it, as a member of its gang

	pools []string // names in order
	// misfit is why the item can never run on the node of that generation.
	misfit     error
	generation int
}

type gangKey struct{ namespace, gang string }

func (e *entry) gangKey() gangKey { return gangKey{e.Namespace, e.Gang} }

// New makes a scheduler over a node.
func New(cfg Config) *Scheduler {
	s := &Scheduler{
		maxWait:   cfg.MaxWait,
		pending:   make(map[string]*entry),
		held:      make(map[string]*Holder),
		usedPools: make(map[string]int64),
		owner:     make(map[string]string),
		ports:     make(map[int32]string),
		gangHeld:  make(map[gangKey]int),
	}
	if s.maxWait <= 0 {
		s.maxWait = DefaultMaxWait
	}
	s.SetNode(cfg.Node)
	return s
}

// SetNode replaces the capacity. What runs keeps what it holds, even where the
// new capacity is less; nothing is given out until there is room again.
func (s *Scheduler) SetNode(node Node) {
	s.node = node
	s.device = make(map[string]int, len(node.Devices))
	for i, d := range node.Devices {
		s.device[d.UUID] = i
	}
	s.place = nil
	s.generation++
}

// Submit puts an item into the queue. An item that waits already is replaced
// (its demand may have changed); one that holds its grant is left alone.
func (s *Scheduler) Submit(item Item) {
	if _, holds := s.held[item.ID]; holds {
		return
	}
	if old, waits := s.pending[item.ID]; waits {
		old.gone = true
	}
	e := &entry{Item: item, pools: sortedKeys(item.Demand.Pools)}
	s.pending[item.ID] = e
	s.queue = append(s.queue, e)
}

// Withdraw takes an item out of the queue. One that is not there is no error.
func (s *Scheduler) Withdraw(id string) {
	if e, waits := s.pending[id]; waits {
		e.gone = true
		delete(s.pending, id)
	}
}

// Adopt records a grant that an earlier scheduler made and that is in force, as
// after a restart. It is recorded even where the node has too little for it;
// the error says which exact unit somebody else holds too, which cannot come
// from this scheduler's own decisions.
func (s *Scheduler) Adopt(grant Grant, item Item) error {
	s.Withdraw(item.ID)
	s.Release(item.ID)
	grant.ID = item.ID
	for _, uuid := range grant.GPUs {
		if other, taken := s.owner[uuid]; taken {
			s.hold(grant, item)
			return fmt.Errorf("adopt the claim of %s: device %s is held by %s too", item.Name, uuid, s.nameOf(other))
		}
	}
	for _, port := range grant.HostPorts {
		if other, taken := s.ports[port]; taken {
			s.hold(grant, item)
			return fmt.Errorf("adopt the claim of %s: host port %d is held by %s too", item.Name, port, s.nameOf(other))
		}
	}
	s.hold(grant, item)
	return nil
}

// hold enters a grant into the books.
func (s *Scheduler) hold(grant Grant, item Item) {
	s.held[item.ID] = &Holder{Item: item, Grant: grant}
	s.usedCPU += grant.CPUMilli
	s.usedMem += grant.Memory
	for _, uuid := range grant.GPUs {
		s.owner[uuid] = item.ID
	}
	for name, n := range grant.Pools {
		s.usedPools[name] += n
	}
	for _, port := range grant.HostPorts {
		s.ports[port] = item.ID
	}
	if item.Gang != "" {
		s.gangHeld[gangKey{item.Namespace, item.Gang}]++
	}
}

// Release gives back what an item holds; call it once nothing of it runs any
// more. An item that holds nothing is no error.
func (s *Scheduler) Release(id string) {
	h, holds := s.held[id]
	if !holds {
		return
	}
	delete(s.held, id)
	s.usedCPU -= h.Grant.CPUMilli
	s.usedMem -= h.Grant.Memory
	for _, uuid := range h.Grant.GPUs {
		if s.owner[uuid] == id {
			delete(s.owner, uuid)
		}
	}
	for name, n := range h.Grant.Pools {
		if s.usedPools[name] -= n; s.usedPools[name] == 0 {
			delete(s.usedPools, name)
		}
	}
	for _, port := range h.Grant.HostPorts {
		if s.ports[port] == id {
			delete(s.ports, port)
		}
	}
	if h.Item.Gang != "" {
		key := gangKey{h.Item.Namespace, h.Item.Gang}
		if s.gangHeld[key]--; s.gangHeld[key] == 0 {
			delete(s.gangHeld, key)
		}
	}
	for i := range s.heads {
		s.heads[i].unpass(id)
	}
}

// Snapshot says who holds what and who waits. It copies everything it returns.
func (s *Scheduler) Snapshot() Snapshot {
	snap := Snapshot{
		Node: s.node, UsedCPUMilli: s.usedCPU, UsedMemoryBytes: s.usedMem,
		UsedGPUs: len(s.owner), UsedPools: maps.Clone(s.usedPools),
		Holders: make([]Holder, 0, len(s.held)), Queue: make([]Queued, 0, len(s.pending)),
	}
	for _, h := range s.held {
		snap.Holders = append(snap.Holders, *h)
	}
	slices.SortFunc(snap.Holders, func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.Item.Name, b.Item.Name), cmp.Compare(a.Item.ID, b.Item.ID))
	})
	ex := s.explainer()
	for _, e := range s.queue {
		if !e.gone {
			snap.Queue = append(snap.Queue, Queued{Item: e.Item, Wait: ex.wait(e)})
		}
	}
	return snap
}

func (s *Scheduler) nameOf(id string) string {
	if h, holds := s.held[id]; holds {
		return h.Item.Name
	}
	return id
}
