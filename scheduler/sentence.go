package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// verdict is why an item waits, before it is put into words: sentences are
// made at the end of a decision, from the state it ends with.
type verdict struct {
	reason   string
	demand   Demand
	other    string // a pool's, gang's or head's name
	gang     string // the gang that waits as one
	port     int32
	have     int // gang members that are here
	want     int
	headNeed vector
	err      error
}

// maxNames is how many holders a sentence names: more would not be read.
const maxNames = 3

// explainer puts verdicts into words. What is the same for many items (who
// holds the devices) is worked out once.
type explainer struct {
	s                  *Scheduler
	heldGPU            string
	heldCPU, heldMem   string
	haveGPU, haveOther bool
	memo               map[memoKey]string
}

type memoKey struct {
	reason, other, gang string
	need                vector
	extra               int64
}

func (s *Scheduler) explainer() *explainer {
	return &explainer{s: s, memo: make(map[memoKey]string)}
}

// waits lists everything pending, in order.
func (s *Scheduler) waits() []Wait {
	if len(s.pending) == 0 {
		return nil
	}
	ex := s.explainer()
	list := make([]Wait, 0, len(s.pending))
	for _, e := range s.queue {
		if !e.gone {
			list = append(list, ex.wait(e))
		}
	}
	return list
}

func (x *explainer) wait(e *entry) Wait {
	v := &e.wait
	w := Wait{ID: e.ID, Reason: v.reason}
	if v.reason == "" {
		w.Reason, w.Sentence = WaitReserved, "waits for the next scheduling round"
		return w
	}
	d := &v.demand
	key := memoKey{reason: v.reason, other: v.other, gang: v.gang, need: vector{d.CPUMilli, d.MemoryBytes, d.GPUs}}
	switch v.reason {
	case WaitUnsatisfiable:
		w.Sentence = "cannot run here: " + v.err.Error()
		return w
	case WaitPool:
		key.extra = d.Pools[v.other]
	case WaitPort:
		key.extra = int64(v.port)
	case WaitGang:
		key.extra = int64(v.have)<<32 | int64(v.want)
	}
	sentence, known := x.memo[key]
	if !known {
		sentence = x.sentence(v)
		if v.gang != "" {
			sentence = strings.Replace(sentence, "waits", fmt.Sprintf("waits with the rest of its gang %q", v.gang), 1)
		}
		x.memo[key] = sentence
	}
	w.Sentence = sentence
	return w
}

func (x *explainer) sentence(v *verdict) string {
	s, d := x.s, &v.demand
	switch v.reason {
	case WaitGPU:
		return "waits for " + gpus(d.GPUs) + ": " + x.deviceState()
	case WaitCPU:
		free := max(0, s.node.CPUMilli-s.usedCPU)
		return "waits for " + cpus(d.CPUMilli) + ": " + freeOf(cpuAmount(free), cpuAmount(s.node.CPUMilli)) + x.cpuHolders()
	case WaitMemory:
		free := max(0, s.node.MemoryBytes-s.usedMem)
		return "waits for " + bytesAmount(d.MemoryBytes) + " of memory: " + freeOf(bytesAmount(free), bytesAmount(s.node.MemoryBytes)) + x.memHolders()
	case WaitPool:
		return x.poolSentence(v.other, d.Pools[v.other])
	case WaitPort:
		return "waits for host port " + strconv.Itoa(int(v.port)) + ", held by " + s.nameOf(s.ports[v.port])
	case WaitGang:
		return fmt.Sprintf("waits for its gang %q: %d of %d members are here", v.other, v.have, v.want)
	default:
		need := cpus(v.headNeed.cpu)
		switch {
		case v.headNeed.gpus > 0:
			need = gpus(v.headNeed.gpus)
		case v.headNeed.cpu == 0 || v.headNeed.mem > s.node.MemoryBytes-s.usedMem:
			need = bytesAmount(v.headNeed.mem) + " of memory"
		}
		if v.headNeed == (vector{}) {
			return "waits for its turn behind " + v.other + ", which is first in line for the same host port"
		}
		return "waits for its turn behind " + v.other + ", which is first in line for " + need
	}
}

// countFree is freeOf for things that are counted.
func countFree(free, all int64) string {
	if free == 0 || free == 1 {
		return freeOf(strconv.FormatInt(free, 10), strconv.FormatInt(all, 10))
	}
	return strconv.FormatInt(free, 10) + " of " + strconv.FormatInt(all, 10) + " are free"
}

func freeOf(free, all string) string {
	if free == "0" || free == "0 bytes" {
		return "none of " + all + " is free"
	}
	return free + " of " + all + " is free"
}

// deviceState is "1 of 8 is free, 7 are held by default/train-0 (5), …".
func (x *explainer) deviceState() string {
	if x.haveGPU {
		return x.heldGPU
	}
	x.haveGPU = true
	s := x.s
	free, sick := 0, 0
	byHolder := make(map[string]int64)
	for i := range s.node.Devices {
		switch owner, taken := s.owner[s.node.Devices[i].UUID]; {
		case taken:
			byHolder[s.nameOf(owner)]++
		case !s.node.Devices[i].Healthy:
			sick++
		default:
			free++
		}
	}
	parts := []string{countFree(int64(free), int64(len(s.node.Devices)))}
	if sick > 0 {
		parts = append(parts, strconv.Itoa(sick)+" out of service")
	}
	var held int64
	for _, n := range byHolder {
		held += n
	}
	if held > 0 {
		verb := " are held by "
		if held == 1 {
			verb = " is held by "
		}
		parts = append(parts, strconv.FormatInt(held, 10)+verb+names(byHolder, func(n int64) string { return strconv.FormatInt(n, 10) }))
	}
	x.heldGPU = strings.Join(parts, ", ")
	return x.heldGPU
}

func (x *explainer) cpuHolders() string {
	x.nodeHolders()
	return x.heldCPU
}

func (x *explainer) memHolders() string {
	x.nodeHolders()
	return x.heldMem
}

func (x *explainer) nodeHolders() {
	if x.haveOther {
		return
	}
	x.haveOther = true
	cpu, mem := make(map[string]int64), make(map[string]int64)
	for _, h := range x.s.held {
		cpu[h.Item.Name] += h.Grant.CPUMilli
		mem[h.Item.Name] += h.Grant.Memory
	}
	if list := names(cpu, cpuAmount); list != "" {
		x.heldCPU = ", the rest is held by " + list
	}
	if list := names(mem, bytesAmount); list != "" {
		x.heldMem = ", the rest is held by " + list
	}
}

func (x *explainer) poolSentence(pool string, want int64) string {
	s := x.s
	holders := make(map[string]int64)
	for _, h := range s.held {
		if n := h.Grant.Pools[pool]; n > 0 {
			holders[h.Item.Name] += n
		}
	}
	all := s.node.Pools[pool]
	text := fmt.Sprintf("waits for %d of pool %q: %s", want, pool,
		countFree(max(0, all-s.usedPools[pool]), all))
	if list := names(holders, func(n int64) string { return strconv.FormatInt(n, 10) }); list != "" {
		text += ", held by " + list
	}
	if all-s.usedPools[pool] >= want {
		text += ", kept for an earlier one in line"
	}
	return text
}

// names lists the greatest holders first: "a (4), b (2) and 3 more".
func names(amounts map[string]int64, format func(int64) string) string {
	type holder struct {
		name   string
		amount int64
	}
	list := make([]holder, 0, len(amounts))
	for name, n := range amounts {
		if n > 0 {
			list = append(list, holder{name, n})
		}
	}
	slices.SortFunc(list, func(a, b holder) int {
		return cmp.Or(cmp.Compare(b.amount, a.amount), cmp.Compare(a.name, b.name))
	})
	var b strings.Builder
	for i, h := range list {
		if i == maxNames {
			fmt.Fprintf(&b, " and %d more", len(list)-maxNames)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(h.name + " (" + format(h.amount) + ")")
	}
	return b.String()
}
