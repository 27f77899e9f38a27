package scheduler

import "math/bits"

// maxPlaced is the most devices whose sets are all enumerated: 2^16 sets fit a
// small table, and no workstation or server of one node has more. A node with
// more gives out devices by index.
const maxPlaced = 16

// rank orders sets of devices by their links: greater is better. It packs the
// slowest link, the sum of links and the number of NUMA nodes, so that tables
// stay small and comparisons cheap.
type rank int64

// placer holds, for every set of the node's devices, its rank, and for some
// sizes the best rank of any set of that size within it.
type placer struct {
	n     int
	ranks []rank
	// best[k][m] is the best rank of a set of damageSizes[k] devices in m.
	best [len(damageSizes)][]rank
}

// damageSizes are the sizes of sets whose loss counts, the largest first.
var damageSizes = [...]int{8, 4, 2}

func newPlacer(node *Node) *placer {
	n := len(node.Devices)
	p := &placer{n: n, ranks: make([]rank, 1<<n)}
	slowest := make([]int64, 1<<n)
	sums := make([]int64, 1<<n)
	numas := make([]uint64, 1<<n)
	numaBit := numaBits(node)
	for m := 1; m < 1<<n; m++ {
		low := bits.TrailingZeros(uint(m))
		rest := m &^ (1 << low)
		slow, sum := slowest[rest], sums[rest]
		for r := rest; r != 0; r &= r - 1 {
			link := linkBetween(node, low, bits.TrailingZeros(uint(r)))
			sum += link
			if bits.OnesCount(uint(m)) == 2 || link < slow {
				slow = link
			}
		}
		slowest[m], sums[m], numas[m] = slow, sum, numas[rest]|numaBit[low]
		p.ranks[m] = rank(slow<<40 | min(sum, 1<<32-1)<<8 | int64(64-bits.OnesCount64(numas[m])))
	}
	for k, size := range damageSizes {
		if size > n {
			continue
		}
		best := make([]rank, 1<<n)
		for m := 1; m < 1<<n; m++ {
			switch c := bits.OnesCount(uint(m)); {
			case c == size:
				best[m] = p.ranks[m]
			case c > size:
				for r := m; r != 0; r &= r - 1 {
					best[m] = max(best[m], best[m&^(r&-r)])
				}
			}
		}
		p.best[k] = best
	}
	return p
}

// numaBits gives each device the bit of its NUMA node, numbered from 0 in the
// order they appear.
func numaBits(node *Node) []uint64 {
	seen := make(map[int]int)
	list := make([]uint64, len(node.Devices))
	for i, d := range node.Devices {
		if _, known := seen[d.NUMA]; !known {
			seen[d.NUMA] = len(seen)
		}
		list[i] = 1 << seen[d.NUMA]
	}
	return list
}

// linkBetween is the bandwidth class of a pair, 0 where unknown; the slower
// direction counts, and classes beyond 2^20 are equal.
func linkBetween(node *Node, i, j int) int64 {
	return min(linkOneWay(node, i, j), linkOneWay(node, j, i))
}

func linkOneWay(node *Node, i, j int) int64 {
	if i >= len(node.Links) || j >= len(node.Links[i]) || node.Links[i][j] < 0 {
		return 0
	}
	return int64(min(node.Links[i][j], 1<<20))
}

// choose picks k of the free devices; free has at least k bits.
func (p *placer) choose(free, k int) int {
	best := 0
	for m := free; m != 0; m = (m - 1) & free {
		if bits.OnesCount(uint(m)) == k && (best == 0 || p.better(m, best, free)) {
			best = m
		}
	}
	return best
}

// better compares two sets of equal size by the rules of the package comment.
func (p *placer) better(a, b, free int) bool {
	if p.ranks[a] != p.ranks[b] {
		return p.ranks[a] > p.ranks[b]
	}
	for k := range damageSizes {
		if t := p.best[k]; t != nil && t[free&^a] != t[free&^b] {
			return t[free&^a] > t[free&^b]
		}
	}
	if pa, pb := wholePairs(free&^a), wholePairs(free&^b); pa != pb {
		return pa > pb
	}
	if pa, pb := wholePairs(a), wholePairs(b); pa != pb {
		return pa > pb
	}
	return bits.Reverse16(uint16(a)) > bits.Reverse16(uint16(b))
}

// wholePairs counts the aligned pairs (0,1), (2,3) … that are in the set:
// neighbours by index usually hang on one switch where links do not tell.
func wholePairs(m int) int {
	return bits.OnesCount(uint(m & (m >> 1) & 0x5555))
}

// chooseDevices picks n of the free devices; the caller knows there are as many.
func (s *Scheduler) chooseDevices(n int) []string {
	uuids := make([]string, 0, n)
	if len(s.node.Devices) > maxPlaced {
		for i := range s.node.Devices {
			if s.isFree(i) && len(uuids) < n {
				uuids = append(uuids, s.node.Devices[i].UUID)
			}
		}
		return uuids
	}
	if s.place == nil {
		s.place = newPlacer(&s.node)
	}
	free := 0
	for i := range s.node.Devices {
		if s.isFree(i) {
			free |= 1 << i
		}
	}
	for m := s.place.choose(free, n); m != 0; m &= m - 1 {
		uuids = append(uuids, s.node.Devices[bits.TrailingZeros(uint(m))].UUID)
	}
	return uuids
}
