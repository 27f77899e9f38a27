package skiff

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-ml/skiff/api/core"
)

// AnnotationPinned is the annotation that, with the value "true", keeps an
// artifact, or what a run made and used, whatever the retention says.
const AnnotationPinned = "skiff.dev/pinned"

// FinalizerContents keeps an Artifact that is deleted until its contents are gone.
const FinalizerContents = "skiff.dev/contents"

// RetentionConfigMap is the name of the ConfigMap by which a namespace has a
// retention of its own: its keys, each as in ParseRetention, replace the daemon's.
const RetentionConfigMap = "skiff-retention"

// The bounds by name: in flags, in a namespace's ConfigMap, and as the Reason of
// what was purged for them.
const (
	RetainMaxAge   = "max-age"
	RetainMaxRuns  = "max-runs"
	RetainMaxBytes = "max-bytes"
)

// Pinned reports whether somebody wants an object kept.
func Pinned(obj core.Object) bool { return obj.Metadata().Annotations[AnnotationPinned] == "true" }

// Retention bounds what a namespace keeps of the artifacts that its runs made; a
// zero field is no bound. What goes first is what was made, or last used by a
// later run, the longest ago.
type Retention struct {
	// MaxAge is how long an artifact is kept after that.
	MaxAge time.Duration
	// MaxRuns is how many runs, the newest, keep theirs.
	MaxRuns int
	// MaxBytes is how much all may take together.
	MaxBytes int64
}

// ParseRetention reads "max-age=30d,max-runs=1000,max-bytes=200GiB"; an empty text
// is no bound at all, and so is the value "none" of one of them.
func ParseRetention(text string) (Retention, error) {
	var r Retention
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		if err := r.Set(name, value); err != nil {
			return Retention{}, err
		}
	}
	return r, nil
}

// Set sets one bound by its name.
func (r *Retention) Set(name, value string) error {
	none := value == "none"
	var err error
	switch name {
	case RetainMaxAge:
		if r.MaxAge = 0; !none {
			r.MaxAge, err = parseRetainedAge(value)
		}
	case RetainMaxRuns:
		if r.MaxRuns = 0; !none {
			if r.MaxRuns, err = strconv.Atoi(value); err != nil || r.MaxRuns < 1 {
				err = fmt.Errorf("%q: want a whole number above 0, or none", value)
			}
		}
	case RetainMaxBytes:
		if r.MaxBytes = 0; !none {
			r.MaxBytes, err = parseBytes(value)
		}
	default:
		return fmt.Errorf("%q is no bound; want %s, %s or %s", name, RetainMaxAge, RetainMaxRuns, RetainMaxBytes)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// String is what ParseRetention reads.
func (r Retention) String() string {
	var parts []string
	if r.MaxAge > 0 {
		age := r.MaxAge.String()
		if r.MaxAge%day == 0 {
			age = strconv.FormatInt(int64(r.MaxAge/day), 10) + "d"
		}
		parts = append(parts, RetainMaxAge+"="+age)
	}
	if r.MaxRuns > 0 {
		parts = append(parts, RetainMaxRuns+"="+strconv.Itoa(r.MaxRuns))
	}
	if r.MaxBytes > 0 {
		parts = append(parts, RetainMaxBytes+"="+bytesText(r.MaxBytes))
	}
	return strings.Join(parts, ",")
}

// maxRetainedAge is longer than anybody keeps anything; an age beyond it is a
// mistake.
const maxRetainedAge = 100 * 365 * day

// parseRetainedAge reads an age that something reaches.
func parseRetainedAge(text string) (time.Duration, error) {
	age, err := ParseAge(text)
	if err != nil || age <= 0 || age > maxRetainedAge {
		return 0, fmt.Errorf("%q: want an age such as 30d, 2w or 12h, or none", text)
	}
	return age, nil
}

// parseBytes reads a quantity, whose suffixes of bytes may end in a B.
func parseBytes(text string) (int64, error) {
	quantity, err := core.ParseQuantity(strings.TrimSuffix(text, "B"))
	n := int64(0)
	if err == nil {
		n = quantity.Value()
	}
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%q: want an amount such as 200GiB, or none", text)
	}
	return n, nil
}

func bytesText(n int64) string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for ; i < len(units)-1 && n%1024 == 0 && n > 0; i++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + units[i]
}

// Purge says that an artifact's contents are gone, or on their way out, and why.
// From then on nothing takes the artifact for one whose contents can be had.
type Purge struct {
	// At is when it was decided; what is removed is removed after that.
	At time.Time `json:"at"`
	// Reason is the bound that was exceeded; Message says it to people.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Removing says that the removal has begun, so that there is no way back.
	Removing bool `json:"removing,omitempty"`
	// RemovedAt is when nothing was left of the contents; zero while something
	// may be, as where another artifact that is kept has them too.
	RemovedAt time.Time `json:"removedAt,omitzero"`
	// Stuck says why contents whose removal has begun are there still. It is tried
	// again; nil while nothing is in the way.
	Stuck *Stuck `json:"stuck,omitempty"`
}

// Stuck is what keeps contents from being removed.
type Stuck struct {
	// Reason is one of the Stuck… below; Message says it to people.
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// Since is when this reason was met first.
	Since time.Time `json:"since"`
}

// Reasons of Stuck.
const (
	StuckStoreAway     = "StoreAway"     // the object store does not answer
	StuckStoreDenied   = "StoreDenied"   // it refuses the credentials, or to delete
	StuckStoreSettings = "StoreSettings" // the namespace does not say how to get in, or names another store
	StuckRemoval       = "Removal"       // anything else, as an error of the disk
)

// Gone says why an artifact's contents cannot be had any more, "" where they can.
func (a *Artifact) Gone() string {
	switch p := a.Status.Purged; {
	case p != nil && p.Stuck != nil:
		return fmt.Sprintf("its contents were given up on %s (%s): %s; they are still to be removed (%s): %s",
			p.At.UTC().Format(time.DateTime), p.Reason, p.Message, p.Stuck.Reason, p.Stuck.Message)
	case p != nil:
		return fmt.Sprintf("its contents were removed on %s (%s): %s", p.At.UTC().Format(time.DateTime), p.Reason, p.Message)
	case a.DeletionTimestamp != nil:
		return "it was deleted with its run on " + a.DeletionTimestamp.UTC().Format(time.DateTime)
	default:
		return ""
	}
}

// OutlivesRun says whether an artifact stays when its run is deleted: what somebody
// pinned, what another run used, what the run did not make, and what was made
// before contents were followed to their end.
func (a *Artifact) OutlivesRun() bool {
	return Pinned(a) || !a.Status.UsedAt.IsZero() || len(a.OwnerReferences) == 0 || (a.Status.Size > 0 && len(a.Finalizers) == 0)
}

// LastUsed is when an artifact was made or, where that is later, last used by
// another run than its own.
func (a *Artifact) LastUsed() time.Time {
	if a.Status.UsedAt.After(a.CreationTimestamp) {
		return a.Status.UsedAt
	}
	return a.CreationTimestamp
}

// PurgeReport is what a look at a namespace's retention came to.
type PurgeReport struct {
	Namespace string `json:"namespace"`
	// Retention is the policy as text; DryRun says that nothing was removed.
	Retention string `json:"retention"`
	DryRun    bool   `json:"dryRun,omitempty"`
	// Artifacts and Bytes are all that goes, or went. Bytes that another artifact
	// has too stay where they are until that goes.
	Artifacts int   `json:"artifacts"`
	Bytes     int64 `json:"bytes"`
	// BucketBytes are those of Bytes that skiff brought to object stores, which
	// lose them, too.
	BucketBytes int64 `json:"bucketBytes"`
	// Stuck is how many of the namespace's artifacts were given up, now or before,
	// and are not removed, as where their object store is away; StuckMessage says
	// why of one.
	Stuck        int    `json:"stuck"`
	StuckMessage string `json:"stuckMessage,omitempty"`
	// Pinned and InUse are how many would have gone and are kept for that.
	Pinned int `json:"pinned"`
	InUse  int `json:"inUse"`
	// Items are the first of them, at most MaxPurgeItems.
	Items []PurgeItem `json:"items"`
}

// MaxPurgeItems bounds a report's items.
const MaxPurgeItems = 1000

// PurgeItem is one artifact of a report.
type PurgeItem struct {
	Name  string `json:"name"`
	Run   string `json:"run"`
	Title string `json:"title"`
	URI   string `json:"uri"`
	Bytes int64  `json:"bytes"`
	// Endpoint is the object store that loses the contents, too; empty for none.
	Endpoint string    `json:"endpoint,omitempty"`
	LastUsed time.Time `json:"lastUsed"`
	Reason   string    `json:"reason"`
	Message  string    `json:"message"`
}

// Add counts an artifact into a report.
func (r *PurgeReport) Add(a *Artifact, reason, message string) {
	r.Artifacts++
	r.Bytes += a.Status.Size
	endpoint := ""
	if a.Status.Uploaded != nil {
		endpoint = a.Status.Uploaded.Endpoint
		r.BucketBytes += a.Status.Size
	}
	if len(r.Items) < MaxPurgeItems {
		r.Items = append(r.Items, PurgeItem{Name: a.Name, Run: a.Spec.Run, Title: cmp.Or(a.Spec.DisplayName, a.Spec.Output), URI: a.Spec.URI,
			Bytes: a.Status.Size, Endpoint: endpoint, LastUsed: a.LastUsed(), Reason: reason, Message: message})
	}
}
