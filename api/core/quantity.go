package core

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Quantity is an amount of a resource in the notation of the Kubernetes API
// ("500m", "2", "1.5Gi"). It keeps the text as written; Milli and Value compute.
type Quantity struct{ text string }

// suffixes maps a quantity's suffix to its factor, in thousandths.
var suffixes = map[string]*big.Rat{
	"n": big.NewRat(1, 1_000_000_000), "u": big.NewRat(1, 1_000_000), "m": big.NewRat(1, 1000),
	"": big.NewRat(1, 1), "k": pow(10, 3), "M": pow(10, 6), "G": pow(10, 9), "T": pow(10, 12), "P": pow(10, 15), "E": pow(10, 18),
	"Ki": pow(2, 10), "Mi": pow(2, 20), "Gi": pow(2, 30), "Ti": pow(2, 40), "Pi": pow(2, 50), "Ei": pow(2, 60),
}

func pow(base, exponent int64) *big.Rat {
	return new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(exponent), nil))
}

// ParseQuantity reads the notation of the Kubernetes API. Negative amounts are
// refused: nothing that skiff schedules can be owed.
func ParseQuantity(text string) (Quantity, error) {
	if _, err := parse(text); err != nil {
		return Quantity{}, err
	}
	return Quantity{text: text}, nil
}

// NewQuantity is an amount of whole units.
func NewQuantity(value int64) Quantity { return Quantity{text: strconv.FormatInt(value, 10)} }

// NewMilliQuantity is an amount of thousandths of a unit.
func NewMilliQuantity(milli int64) Quantity {
	if milli%1000 == 0 {
		return NewQuantity(milli / 1000)
	}
	return Quantity{text: strconv.FormatInt(milli, 10) + "m"}
}

func parse(text string) (*big.Rat, error) {
	// A decimal exponent ("1e3") is only one where digits follow; "1E" is exa.
	number, suffix := text, ""
	for i, r := range text {
		if (r < '0' || r > '9') && r != '.' && r != '+' && r != '-' {
			if (r == 'e' || r == 'E') && i+1 < len(text) {
				if _, err := strconv.Atoi(text[i+1:]); err == nil {
					break
				}
			}
			number, suffix = text[:i], text[i:]
			break
		}
	}
	factor, known := suffixes[suffix]
	// big.Rat would read fractions and spend unbounded memory on huge exponents.
	if !known || number == "" || len(number) > 40 || strings.ContainsAny(number, "/_xXpP") {
		return nil, fmt.Errorf("quantity %q: want a number with an optional suffix such as 500m, 2, 1.5Gi", text)
	}
	if i := strings.IndexAny(number, "eE"); i >= 0 {
		if e, err := strconv.Atoi(number[i+1:]); err != nil || e > 30 || e < -30 {
			return nil, fmt.Errorf("quantity %q: the exponent is out of range", text)
		}
	}
	value, ok := new(big.Rat).SetString(number)
	if !ok {
		return nil, fmt.Errorf("quantity %q: want a number with an optional suffix such as 500m, 2, 1.5Gi", text)
	}
	if value.Sign() < 0 {
		return nil, fmt.Errorf("quantity %q: must not be negative", text)
	}
	return value.Mul(value, factor), nil
}

// Milli is the amount in thousandths, rounded up, at most math.MaxInt64.
func (q Quantity) Milli() int64 { return q.scaled(1000) }

// Value is the amount in whole units, rounded up, at most math.MaxInt64.
func (q Quantity) Value() int64 { return q.scaled(1) }

func (q Quantity) scaled(factor int64) int64 {
	if q.text == "" {
		return 0
	}
	value, err := parse(q.text)
	if err != nil {
		return 0
	}
	value.Mul(value, new(big.Rat).SetInt64(factor))
	whole, rest := new(big.Int).QuoRem(value.Num(), value.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		whole.Add(whole, big.NewInt(1))
	}
	if !whole.IsInt64() {
		return math.MaxInt64
	}
	return whole.Int64()
}

// IsZero reports whether no amount was given, or an amount of nothing.
func (q Quantity) IsZero() bool { return q.scaled(1_000_000) == 0 }

// String is the amount as it was written.
func (q Quantity) String() string {
	if q.text == "" {
		return "0"
	}
	return q.text
}

// MarshalJSON writes the amount as a string, as the published API does.
func (q Quantity) MarshalJSON() ([]byte, error) { return json.Marshal(q.String()) }

// UnmarshalJSON accepts a string or a bare number.
func (q *Quantity) UnmarshalJSON(data []byte) error {
	text := string(data)
	if len(data) > 0 && data[0] == '"' {
		if err := json.Unmarshal(data, &text); err != nil {
			return fmt.Errorf("quantity: %w", err)
		}
	}
	parsed, err := ParseQuantity(text)
	if err != nil {
		return err
	}
	*q = parsed
	return nil
}
