package skiff

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"math"
	"strings"
)

// RunColumns are what the values of the indexes of runs hold behind what they
// are ordered by, so that a list can tell by the index alone which runs it is
// of. The engine writes them (RunIndexValue) and the server's lists read them
// (ParseRunColumns); whoever changes their form raises the indexes' version.
//
//	beginning created 00 tie 00 flags 1f state 1f experiment 1f recurring run 1f name
//
// Created is the time as the store's index values have it, newest first. The tie
// keeps runs of one time in one order, whatever changes behind it.
type RunColumns struct {
	Created                         []byte
	State, Experiment, RecurringRun []byte
	Archived                        bool
	// Name is the display name, unless NameCut says that only the run itself
	// tells it: because it is long, or holds what separates columns.
	Name    []byte
	NameCut bool
}

const (
	// columnSeparator stands between columns, columnStart before the first one
	// and between the parts before it; no column holds either.
	columnSeparator = 0x1f
	columnStart     = 0x00
	// maxNameColumn is more than any list shows of a name.
	maxNameColumn = 256
	runColumns    = 5
	// flagsBase makes the two flags of the first column a digit.
	flagsBase = '0'
)

// ColumnsOf are a run's columns but for the time.
func ColumnsOf(run *Run) RunColumns {
	c := RunColumns{
		State: []byte(cmp.Or(run.Status.State, StatePending)), Experiment: []byte(ExperimentOf(run)), RecurringRun: []byte(run.Spec.RecurringRun),
		Archived: run.Spec.Archived, Name: []byte(run.Spec.DisplayName),
	}
	if c.NameCut = len(c.Name) > maxNameColumn || bytes.IndexByte(c.Name, columnStart) >= 0 || bytes.IndexByte(c.Name, columnSeparator) >= 0; c.NameCut {
		c.Name = nil
	}
	return c
}

// RunIndexValue is the value of an index of runs: its beginning, each part of which
// ends with a NUL, the run's time of creation as the store writes it, and its columns.
func RunIndexValue(beginning, created, name string, c RunColumns) string {
	flags := byte(flagsBase)
	if c.Archived {
		flags |= 1
	}
	if c.NameCut {
		flags |= 2
	}
	b := make([]byte, 0, len(beginning)+len(created)+len(c.State)+len(c.Experiment)+len(c.RecurringRun)+len(c.Name)+20)
	b = append(append(append(b, beginning...), created...), columnStart)
	tie := fnv.New32a()
	_, _ = tie.Write([]byte(name))
	b = append(hex.AppendEncode(b, tie.Sum(nil)), columnStart, flags)
	for _, column := range [][]byte{c.State, c.Experiment, c.RecurringRun, c.Name} {
		b = append(append(b, columnSeparator), column...)
	}
	return string(b)
}

// ParseRunColumns reads the end of an index value, of which the columns are
// parts; false for a value that has none.
func ParseRunColumns(value []byte) (RunColumns, bool) {
	var c RunColumns
	at := bytes.LastIndexByte(value, columnStart)
	if at < 0 || at+1 == len(value) {
		return c, false
	}
	rest := value[at+1:]
	flags := rest[0]
	if flags&^3 != flagsBase || bytes.Count(rest, []byte{columnSeparator}) != runColumns-1 {
		return c, false
	}
	rest = rest[2:]
	for _, column := range []*[]byte{&c.State, &c.Experiment, &c.RecurringRun} {
		end := bytes.IndexByte(rest, columnSeparator)
		*column, rest = rest[:end], rest[end+1:]
	}
	c.Name, c.Archived, c.NameCut = rest, flags&1 != 0, flags&2 != 0
	if tie := bytes.LastIndexByte(value[:at], columnStart); tie >= 0 {
		c.Created = value[bytes.LastIndexByte(value[:tie], columnStart)+1 : tie]
	}
	return c, true
}

// MaxOrderText is as much of a text as OrderValue holds.
const MaxOrderText = 64

// OrderValue writes a JSON value, as a parameter or a metric has it, so that
// bytes sort as values do: numbers first, all else by its text, of which the
// first MaxOrderText bytes count. It is empty for null and for nothing.
func OrderValue(value json.RawMessage) string {
	if len(value) == 0 || string(value) == "null" {
		return ""
	}
	if number, ok := Number(value); ok {
		return "0" + orderedFloat(number)
	}
	text := ValueText(value)
	text = strings.ReplaceAll(text[:min(len(text), MaxOrderText)], "\x00", "\x01")
	return "1" + text
}

// Number reads a JSON number that is finite.
func Number(value json.RawMessage) (float64, bool) {
	var number *float64
	if len(value) == 0 || value[0] == '"' || json.Unmarshal(value, &number) != nil || number == nil || math.IsInf(*number, 0) {
		return 0, false
	}
	return *number, true
}

// ValueText is a JSON value as people write it: a text without its quotes.
func ValueText(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

// orderedFloat is 16 hexadecimal digits in the order of numbers; zero is one
// number, whatever its sign.
func orderedFloat(number float64) string {
	bits := math.Float64bits(number)
	if number == 0 {
		bits = 0
	}
	if bits>>63 == 1 {
		bits = ^bits
	} else {
		bits |= 1 << 63
	}
	const digits = "0123456789abcdef"
	var out [16]byte
	for i := range out {
		out[i] = digits[bits>>(60-4*i)&15]
	}
	return string(out[:])
}
