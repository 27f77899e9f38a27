// Package scheduler decides which pod gets which units of the node, and when.
//
// It is pure: no I/O, no clock of its own, no goroutines. The same sequence of
// calls gives the same decisions, so the daemon, the property tests and the
// simulator run the same code. engine/pod feeds it and makes its grants durable.
// It imports the standard library and api only.
//
// # Order
//
// An item that has waited longer than MaxWait goes before all that have not;
// among those the older goes first. All others stand by priority (higher
// first), then by age, then by id. So a stream of urgent work can hold back an
// old item of low priority for MaxWait, never for ever.
//
// # Passing a blocked item
//
// The first item in order that lacks processors, memory or devices is a head;
// there is one for the items that ask for devices and one for those that do
// not. A head's whole demand is reserved: items behind it may start only while
// everything that has started past it, taken together, leaves room for the
// head on an otherwise empty node. So once the work that ran before has ended,
// the head starts, whatever has passed it meanwhile. No estimate of anybody's
// run time is needed; where there are estimates, they may only loosen this.
//
// A named pool is strictly in order: nobody takes units of a pool that an
// earlier item lacks. An item that lacks units of a pool or a host port does
// not reserve processors, memory or devices: it could not use them yet.
//
// # Gangs
//
// A gang stands where its first member stands, and is admitted whole in one
// decision or not at all; nothing is held for a part of it.
//
// # Devices
//
// Of all sets of free devices of the size asked for, the one with the fastest
// slowest link wins, then the greatest sum of links, then the fewest NUMA
// nodes, then the one that leaves the best sets of eight, four and two behind,
// then the one that breaks up the fewest aligned pairs and holds the most, then
// the lowest indices.
package scheduler
