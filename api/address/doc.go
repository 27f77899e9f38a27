// Package address says to which addresses the daemon goes when somebody else
// names one: the address of a pipeline to fetch, of an artifact to import. The
// daemon stands where its callers may not, beside services that trust whoever
// reaches them, so what it may be sent to is one rule for all of them.
//
// Reach is the rule, NewClient an HTTP client that cannot leave it: it looks up
// a name once and dials the very address that was judged, so neither a name that
// changes its mind nor a redirect leads anywhere else.
//
// It is a leaf: it imports the standard library only.
package address
