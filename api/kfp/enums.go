package kfp

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ParameterType is the type of a parameter.
type ParameterType string

// The parameter types.
const (
	ParameterUnspecified     ParameterType = ""
	ParameterDouble          ParameterType = "NUMBER_DOUBLE"
	ParameterInteger         ParameterType = "NUMBER_INTEGER"
	ParameterString          ParameterType = "STRING"
	ParameterBoolean         ParameterType = "BOOLEAN"
	ParameterList            ParameterType = "LIST"
	ParameterStruct          ParameterType = "STRUCT"
	ParameterTaskFinalStatus ParameterType = "TASK_FINAL_STATUS"
	ParameterTaskConfig      ParameterType = "TASK_CONFIG"
)

// PrimitiveType is the deprecated type of a parameter.
type PrimitiveType string

// The primitive types.
const (
	PrimitiveInt    PrimitiveType = "INT"
	PrimitiveDouble PrimitiveType = "DOUBLE"
	PrimitiveString PrimitiveType = "STRING"
)

// declared is the type that the newer or the older field names.
func declared(newer ParameterType, older PrimitiveType) ParameterType {
	if newer != ParameterUnspecified {
		return newer
	}
	switch older {
	case PrimitiveInt:
		return ParameterInteger
	case PrimitiveDouble:
		return ParameterDouble
	case PrimitiveString:
		return ParameterString
	}
	return ParameterUnspecified
}

// TriggerStrategy says which ends of its upstream a task waits for.
type TriggerStrategy string

// The strategies; the empty one means the first.
const (
	AllUpstreamTasksSucceeded TriggerStrategy = "ALL_UPSTREAM_TASKS_SUCCEEDED"
	AllUpstreamTasksCompleted TriggerStrategy = "ALL_UPSTREAM_TASKS_COMPLETED"
)

// TaskConfigField is a part of a task's pod settings.
type TaskConfigField string

// The fields that may be passed through.
const (
	ConfigNone         TaskConfigField = "NONE"
	ConfigResources    TaskConfigField = "RESOURCES"
	ConfigEnv          TaskConfigField = "ENV"
	ConfigAffinity     TaskConfigField = "KUBERNETES_AFFINITY"
	ConfigTolerations  TaskConfigField = "KUBERNETES_TOLERATIONS"
	ConfigNodeSelector TaskConfigField = "KUBERNETES_NODE_SELECTOR"
	ConfigVolumes      TaskConfigField = "KUBERNETES_VOLUMES"
)

// enumNames are the published names of an enumeration, in the order of their
// numbers. The first is the unspecified one and is kept as "".
type enumNames interface{ enumNames() []string }

func (ParameterType) enumNames() []string {
	return []string{
		"PARAMETER_TYPE_ENUM_UNSPECIFIED", string(ParameterDouble), string(ParameterInteger), string(ParameterString),
		string(ParameterBoolean), string(ParameterList), string(ParameterStruct), string(ParameterTaskFinalStatus), string(ParameterTaskConfig),
	}
}

func (PrimitiveType) enumNames() []string {
	return []string{"PRIMITIVE_TYPE_UNSPECIFIED", string(PrimitiveInt), string(PrimitiveDouble), string(PrimitiveString)}
}

func (TriggerStrategy) enumNames() []string {
	return []string{"TRIGGER_STRATEGY_UNSPECIFIED", string(AllUpstreamTasksSucceeded), string(AllUpstreamTasksCompleted)}
}

func (TaskConfigField) enumNames() []string {
	return []string{
		string(ConfigNone), string(ConfigResources), string(ConfigEnv), string(ConfigAffinity),
		string(ConfigTolerations), string(ConfigNodeSelector), string(ConfigVolumes),
	}
}

// Duration is a google.protobuf.Duration: decimal seconds with an "s".
type Duration time.Duration

// Duration is the value as the standard library has it.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// maxDurationSeconds is what the standard library's durations can hold.
const maxDurationSeconds = math.MaxInt64 / int64(time.Second)

// ParseDuration reads the published notation ("3600s", "1.5s").
func ParseDuration(text string) (Duration, error) {
	number, found := strings.CutSuffix(text, "s")
	if !found || number == "" || strings.Trim(number, "0123456789.-") != "" {
		return 0, fmt.Errorf("duration %q: want seconds with an s, such as 30s or 1.5s", text)
	}
	seconds, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("duration %q: want seconds with an s, such as 30s or 1.5s", text)
	}
	if math.Abs(seconds) >= float64(maxDurationSeconds) {
		return 0, fmt.Errorf("duration %q: at most %d seconds", text, maxDurationSeconds)
	}
	return Duration(math.Round(seconds * float64(time.Second))), nil
}

// String is the published notation.
func (d Duration) String() string {
	return strconv.FormatFloat(time.Duration(d).Seconds(), 'f', -1, 64) + "s"
}

// MarshalJSON writes the published notation.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads the published notation.
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("duration: %w", err)
	}
	parsed, err := ParseDuration(text)
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
