package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// vector is a demand on what every item may need of the node.
type vector struct {
	cpu, mem int64
	gpus     int
}

func (v vector) plus(o vector) vector {
	return vector{v.cpu + o.cpu, v.mem + o.mem, v.gpus + o.gpus}
}

// class tells apart the two kinds of head.
type class int

const (
	classCPU class = iota // asks for no device
	classGPU
	classes
)

// head is a blocked item whose demand is reserved, and what has passed it.
type head struct {
	id     string // the item's id, or a gang's key
	name   string
	need   vector
	passed map[string]vector // id → what it took
	sum    vector            // of passed
}

// pass counts what started past the head; unpass forgets what has ended.
func (h *head) pass(id string, took vector) {
	h.passed[id] = took
	h.sum = h.sum.plus(took)
}

func (h *head) unpass(id string) {
	if took, counted := h.passed[id]; counted {
		delete(h.passed, id)
		h.sum = h.sum.plus(vector{-took.cpu, -took.mem, -took.gpus})
	}
}

// unit is what is admitted at once: an item, or all members of a gang.
type unit struct {
	id      string
	members []*entry
	need    vector
	demand  Demand   // summed, for capacity checks and sentences
	pools   []string // the demand's, in order
}

// round is the working state of one decision.
type round struct {
	s *Scheduler
	// active says which heads this round has met.
	active [classes]bool
	next   [classes]head
	// poolReserved are units kept for an earlier blocked unit; poolShut are
	// pools that an earlier unit lacks.
	poolReserved map[string]int64
	poolShut     map[string]string
	portReserved map[int32]string
	gangs        map[gangKey][]*entry
	grants       []Grant
	freeGPUs     int // counted when first asked for, -1 before
	healthyGPUs  int
}

// Decide grants what can start now, in order, and says of everything else why
// it waits. Calling it again without a change in between grants nothing.
func (s *Scheduler) Decide(now time.Time) Decision {
	s.sortQueue(now)
	r := &round{s: s, freeGPUs: -1, healthyGPUs: s.healthyDevices()}
	for _, e := range s.queue {
		e.visited = false
		if e.Gang != "" {
			if r.gangs == nil {
				r.gangs = make(map[gangKey][]*entry)
			}
			r.gangs[e.gangKey()] = append(r.gangs[e.gangKey()], e)
		}
	}
	var single [1]*entry
	for _, e := range s.queue {
		if e.visited {
			continue
		}
		if e.Gang == "" {
			single[0] = e
			u := unit{id: e.ID, members: single[:], demand: e.Demand, pools: e.pools,
				need: vector{e.Demand.CPUMilli, e.Demand.MemoryBytes, e.Demand.GPUs}}
			e.wait = r.consider(&u)
			continue
		}
		members := r.gangs[e.gangKey()]
		v := r.considerGang(members)
		for _, m := range members {
			m.visited, m.wait = true, v
		}
	}
	s.heads = r.next
	return Decision{Grants: r.grants, Waits: s.waits()}
}

// sortQueue drops what is gone and puts the rest in order.
func (s *Scheduler) sortQueue(now time.Time) {
	s.queue = slices.DeleteFunc(s.queue, func(e *entry) bool { return e.gone })
	old := now.Add(-s.maxWait)
	slices.SortFunc(s.queue, func(a, b *entry) int {
		aOld, bOld := !a.Submitted.After(old), !b.Submitted.After(old)
		switch {
		case aOld && !bOld:
			return -1
		case bOld && !aOld:
			return 1
		case !aOld:
			if c := cmp.Compare(b.Priority, a.Priority); c != 0 {
				return c
			}
		}
		if c := a.Submitted.Compare(b.Submitted); c != 0 {
			return c
		}
		return cmp.Compare(a.ID, b.ID)
	})
}

// considerGang treats the pending members of a gang as one unit.
func (r *round) considerGang(members []*entry) verdict {
	key := members[0].gangKey()
	size := 0
	for _, m := range members {
		size = max(size, m.GangSize)
	}
	here := len(members) + r.s.gangHeld[key]
	if here < size {
		return verdict{reason: WaitGang, have: here, want: size, other: key.gang}
	}
	u := unit{id: "gang/" + key.namespace + "/" + key.gang, members: members}
	for _, m := range members {
		d := m.Demand
		u.need = u.need.plus(vector{d.CPUMilli, d.MemoryBytes, d.GPUs})
		u.demand.HostPorts = append(u.demand.HostPorts, d.HostPorts...)
		if d.GPUKind != "" {
			u.demand.GPUKind = d.GPUKind
		}
		if len(d.Pools) > 0 && u.demand.Pools == nil {
			u.demand.Pools = make(map[string]int64, len(d.Pools))
		}
		for name, n := range d.Pools {
			u.demand.Pools[name] += n
		}
	}
	u.demand.CPUMilli, u.demand.MemoryBytes, u.demand.GPUs = u.need.cpu, u.need.mem, u.need.gpus
	u.pools = sortedKeys(u.demand.Pools)
	v := r.consider(&u)
	v.gang, v.demand = key.gang, u.demand
	return v
}

// consider grants the unit or says why not, and reserves for it where it is
// the first of its kind to be blocked.
func (r *round) consider(u *unit) verdict {
	if err := r.s.misfit(u); err != nil {
		return verdict{reason: WaitUnsatisfiable, err: err, demand: u.demand}
	}
	if v, short := r.lacksPoolOrPort(u); short {
		return v
	}
	if v, short := r.lacksNode(u); short {
		r.becomeHead(u)
		return v
	}
	if v, hurts := r.hurtsReservation(u); hurts {
		return v
	}
	r.grant(u)
	return verdict{}
}

// misfit says why the unit can never run, remembering it for single items.
func (s *Scheduler) misfit(u *unit) error {
	e := u.members[0]
	if e.Gang != "" {
		return fits(&s.node, &u.demand, len(s.node.Devices))
	}
	if e.generation != s.generation {
		e.generation, e.misfit = s.generation, fits(&s.node, &e.Demand, len(s.node.Devices))
	}
	return e.misfit
}

// lacksPoolOrPort closes the pools that the unit lacks to everybody behind it
// and, where it is the first to lack one, keeps its units of the others.
func (r *round) lacksPoolOrPort(u *unit) (verdict, bool) {
	if len(u.demand.Pools) == 0 && len(u.demand.HostPorts) == 0 {
		return verdict{}, false
	}
	var v verdict
	short, first := false, false
	for _, name := range u.pools {
		want := u.demand.Pools[name]
		_, shut := r.poolShut[name]
		if want <= 0 || (!shut && want <= r.s.node.Pools[name]-r.s.usedPools[name]) {
			continue
		}
		if !short {
			v = verdict{reason: WaitPool, other: name, demand: u.demand}
		}
		short = true
		if !shut {
			first = true
			if r.poolShut == nil {
				r.poolShut = make(map[string]string)
			}
			r.poolShut[name] = u.members[0].Name
		}
	}
	for _, port := range u.demand.HostPorts {
		if _, taken := r.s.ports[port]; !taken {
			continue
		}
		if !short {
			v = verdict{reason: WaitPort, port: port, demand: u.demand}
		}
		short, first = true, true
	}
	if first {
		r.reserveNamed(u)
	}
	return v, short
}

// reserveNamed keeps the unit's pool units and host ports for it.
func (r *round) reserveNamed(u *unit) {
	for name, n := range u.demand.Pools {
		if r.poolReserved == nil {
			r.poolReserved = make(map[string]int64)
		}
		r.poolReserved[name] += n
	}
	for _, port := range u.demand.HostPorts {
		if r.portReserved == nil {
			r.portReserved = make(map[int32]string)
		}
		if _, kept := r.portReserved[port]; !kept {
			r.portReserved[port] = u.members[0].Name
		}
	}
}

func (r *round) lacksNode(u *unit) (verdict, bool) {
	v := verdict{demand: u.demand}
	switch {
	case u.need.gpus > 0 && u.need.gpus > r.freeDevices():
		v.reason = WaitGPU
	case u.need.mem > r.s.node.MemoryBytes-r.s.usedMem && u.need.mem > 0:
		v.reason = WaitMemory
	case u.need.cpu > r.s.node.CPUMilli-r.s.usedCPU && u.need.cpu > 0:
		v.reason = WaitCPU
	default:
		return verdict{}, false
	}
	return v, true
}

// becomeHead reserves for the first blocked unit of its class. What has passed
// it in earlier rounds stays counted as long as it remains the head.
func (r *round) becomeHead(u *unit) {
	c := classCPU
	if u.need.gpus > 0 {
		c = classGPU
	}
	if r.active[c] {
		return
	}
	r.active[c] = true
	h := head{id: u.id, name: u.members[0].Name, need: u.need}
	if old := r.s.heads[c]; old.id == u.id {
		h.passed, h.sum = old.passed, old.sum
	}
	if h.passed == nil {
		h.passed = make(map[string]vector)
	}
	r.next[c] = h
	r.reserveNamed(u)
}

// hurtsReservation reports whether starting the unit would take what an
// earlier one waits for.
func (r *round) hurtsReservation(u *unit) (verdict, bool) {
	for _, name := range u.pools {
		if u.demand.Pools[name] > r.s.node.Pools[name]-r.s.usedPools[name]-r.poolReserved[name] {
			return verdict{reason: WaitPool, other: name, demand: u.demand}, true
		}
	}
	for _, port := range u.demand.HostPorts {
		if name, kept := r.portReserved[port]; kept {
			return verdict{reason: WaitReserved, other: name, demand: u.demand}, true
		}
	}
	for c := range r.next {
		if r.active[c] && r.delays(&r.next[c], u.need) {
			return verdict{reason: WaitReserved, other: r.next[c].name, headNeed: r.next[c].need, demand: u.demand}, true
		}
	}
	return verdict{}, false
}

// delays reports whether need, with everything that has passed the head so
// far, would leave too little for the head on a node that runs nothing else.
func (r *round) delays(h *head, need vector) bool {
	total := need.plus(h.need).plus(h.sum)
	return (h.need.cpu > 0 && need.cpu > 0 && total.cpu > r.s.node.CPUMilli) ||
		(h.need.mem > 0 && need.mem > 0 && total.mem > r.s.node.MemoryBytes) ||
		(h.need.gpus > 0 && need.gpus > 0 && total.gpus > r.healthyGPUs)
}

// grant gives every member its exact units.
func (r *round) grant(u *unit) {
	for _, e := range u.members {
		d := e.Demand
		g := Grant{ID: e.ID, CPUMilli: d.CPUMilli, Memory: d.MemoryBytes,
			Pools: maps.Clone(d.Pools), HostPorts: slices.Clone(d.HostPorts)}
		if d.GPUs > 0 {
			g.GPUs = r.s.chooseDevices(d.GPUs)
		}
		delete(r.s.pending, e.ID)
		e.gone = true
		r.s.hold(g, e.Item)
		r.freeGPUs = -1
		r.grants = append(r.grants, g)
		for c := range r.next {
			if r.active[c] {
				r.next[c].pass(e.ID, vector{d.CPUMilli, d.MemoryBytes, d.GPUs})
			}
		}
	}
}

func (s *Scheduler) healthyDevices() int {
	n := 0
	for i := range s.node.Devices {
		if s.node.Devices[i].Healthy {
			n++
		}
	}
	return n
}

func (r *round) freeDevices() int {
	if r.freeGPUs < 0 {
		r.freeGPUs = 0
		for i := range r.s.node.Devices {
			if r.s.isFree(i) {
				r.freeGPUs++
			}
		}
	}
	return r.freeGPUs
}

func (s *Scheduler) isFree(i int) bool {
	if !s.node.Devices[i].Healthy {
		return false
	}
	_, taken := s.owner[s.node.Devices[i].UUID]
	return !taken
}
