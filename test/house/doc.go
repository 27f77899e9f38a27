// Package house holds the tests that look at the repository itself: which floor
// imports which, what the daemon links, that every package says what it is. It
// has no code of its own.
package house
