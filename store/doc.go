// Package store keeps skiff's objects in one bbolt file: revisions, watch,
// declared indexes, group commit, a bounded change log, hot backup, and a check
// that finds damage before it spreads.
//
// It imports api/core alone and knows no kind of object by name: kinds are
// declared to Open. Artifacts and logs never enter the file (see
// store/artifact). It must not import anything above it (scheduler, runtime,
// engine, server).
//
// # The file
//
// Four flat buckets; there is no bucket per object. NUL separates the parts of
// a key, so no part may hold one. Numbers in keys are big-endian.
//
//	skiff.db
//	├── meta
//	│   ├── schema     version of this layout, decimal
//	│   ├── id         the store's own id, a UUID
//	│   ├── clean      "1" after an orderly Close, "0" while open
//	│   ├── state      revision, compacted revision and bytes of the change
//	│   │              log, CRC; written by every commit
//	│   ├── changed    why the file is not what its last writer left
//	│   │              ("restored …"), for people
//	│   ├── key        id of the key that sealed kinds are sealed with
//	│   └── indexes/K  names and versions of kind K's indexes as last built
//	├── objects        kind NUL namespace NUL name → record
//	├── indexes        kind NUL index NUL namespace NUL value 00 01 name → nothing
//	│                  (in value, 00 is written 00 FF, so order is kept)
//	└── log            revision (8) sequence (4) → change
//
//	record  CRC-32C(4) format(1) revision(8) length(uvarint) index entries, JSON
//	change  CRC-32C(4) format(1) event(1) length(uvarint) key, JSON
//
// A record's CRC covers its key too, so a value in the wrong place is found. Its
// JSON lacks metadata.resourceVersion, which is the record's revision: so the
// JSON can be made before the revision is known. The index entries that an
// object has are kept in its record, so that replacing it needs no decoding.
//
// The JSON of a sealed kind (Kind.Sealed) is its sealed form, in records, in
// changes and in memory alike; it is opened where an object is decoded. See
// seal.go. The key lies in a file of its own (KeyFile), which no backup holds.
//
// # A commit
//
//	caller                          committer (one goroutine)
//	read what is there now ──┐
//	check, fill in, encode   ├──►  drain the queue
//	                               is what was read still there? (else: back)
//	                               one bbolt transaction for all of the queue
//	                               two syncs
//	             wake, answer ◄──  ring of changes ──► watchers
//
// All encoding happens in the callers' goroutines. The committer only compares
// the revision that a caller saw with the one that is there.
package store
