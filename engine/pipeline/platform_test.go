package pipeline

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-ml/skiff/api/core"
	"github.com/skiff-ml/skiff/api/kfp"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/engine/pipeline/expr"
)

// platformStep is a step with a platform document, inside a pipeline that was
// given some values and beside a task that made a claim.
func platformStep(t *testing.T, config string) *step {
	t.Helper()
	platform := &kfp.KubernetesExecutorConfig{}
	if err := json.Unmarshal([]byte(config), platform); err != nil {
		t.Fatal(err)
	}
	return &step{platform: platform, n: &node{
		inputs: inputs{params: values{"own": "from-own"}},
		scope: &scope{
			inputs: inputs{params: values{
				"name": "given", "number": 7.0, "selector": map[string]any{"disk": "ssd"},
				"toleration": map[string]any{"key": "one"}, "tolerations": []any{map[string]any{"key": "a"}, map[string]any{"key": "b"}},
				"affinity": `{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"zone","operator":"Exists"}]}]}}`,
			}},
			nodes: map[string]*node{"createpvc": {outputs: values{"name": "claim-1"}}},
		},
	}}
}

// TestPlatformFields: each field of the published message, and what of a pod it
// becomes.
func TestPlatformFields(t *testing.T) {
	const given, absent, constant = `{"componentInputParameter":"name"}`, `{"componentInputParameter":"none"}`, `{"runtimeValue":{"constant":"fixed"}}`
	for _, tt := range []struct{ name, config, want, err string }{
		{name: "secret as env", config: `{"secretAsEnv":[{"secretName":"s","keyToEnv":[{"secretKey":"k","envVar":"V"}],"optional":true}]}`,
			want: `{"env":[{"name":"V","valueFrom":{"secretKeyRef":{"name":"s","key":"k","optional":true}}}]}`},
		{name: "secret as env, by input", config: `{"secretAsEnv":[{"secretNameParameter":` + given + `,"keyToEnv":[{"secretKey":"k","envVar":"V"}]}]}`,
			want: `{"env":[{"name":"V","valueFrom":{"secretKeyRef":{"name":"given","key":"k"}}}]}`},
		{name: "secret as env, input of its own", config: `{"secretAsEnv":[{"secretNameParameter":{"componentInputParameter":"own"},"keyToEnv":[{"secretKey":"k","envVar":"V"}]}]}`,
			want: `{"env":[{"name":"V","valueFrom":{"secretKeyRef":{"name":"from-own","key":"k"}}}]}`},
		{name: "secret as env, nothing given", config: `{"secretAsEnv":[{"secretNameParameter":` + absent + `,"keyToEnv":[{"secretKey":"k","envVar":"V"}]}]}`,
			err: "secretAsEnv[0]: no name was given"},
		{name: "secret as env, optional, nothing given", config: `{"secretAsEnv":[{"secretNameParameter":` + absent + `,"keyToEnv":[{"secretKey":"k","envVar":"V"}],"optional":true}]}`, want: `{}`},
		{name: "secret as env, no name at all", config: `{"secretAsEnv":[{"secretNameParameter":{"componentInputParameter":"number"}}]}`, err: "want a name"},
		{name: "secret as volume", config: `{"secretAsVolume":[{"secretNameParameter":` + constant + `,"mountPath":"mnt/s","optional":false}]}`,
			want: `{"mounts":[{"name":"secret-fixed","mountPath":"/mnt/s","readOnly":true}],"spec":{"volumes":[{"name":"secret-fixed","secret":{"secretName":"fixed","optional":false}}]}}`},
		{name: "secret as volume, optional, nothing given", config: `{"secretAsVolume":[{"secretNameParameter":` + absent + `,"mountPath":"/mnt","optional":true}]}`, want: `{}`},
		{name: "config map as env", config: `{"configMapAsEnv":[{"configMapName":"c","keyToEnv":[{"configMapKey":"k","envVar":"V"}]}]}`,
			want: `{"env":[{"name":"V","valueFrom":{"configMapKeyRef":{"name":"c","key":"k"}}}]}`},
		{name: "config map as volume", config: `{"configMapAsVolume":[{"configMapName":"c","mountPath":"/mnt/c"}]}`,
			want: `{"mounts":[{"name":"configmap-c","mountPath":"/mnt/c","readOnly":true}],"spec":{"volumes":[{"name":"configmap-c","configMap":{"name":"c"}}]}}`},
		{name: "config map as volume, nothing given", config: `{"configMapAsVolume":[{"configMapNameParameter":` + absent + `,"mountPath":"/mnt"}]}`, err: "configMapAsVolume[0]"},
		{name: "claim, made by a task", config: `{"pvcMount":[{"pvcNameParameter":{"taskOutputParameter":{"producerTask":"createpvc","outputParameterKey":"name"}},"mountPath":"/data","subPath":"a/b"}]}`,
			want: `{"mounts":[{"name":"claim-claim-1","mountPath":"/data","subPath":"a/b"}],"spec":{"volumes":[{"name":"claim-claim-1","persistentVolumeClaim":{"claimName":"claim-1"}}]}}`},
		{name: "claim, the old ways", config: `{"pvcMount":[{"constant":"c","mountPath":"/a"},{"taskOutputParameter":{"producerTask":"createpvc","outputParameterKey":"name"},"mountPath":"/b"},{"componentInputParameter":"name","mountPath":"/c"}]}`,
			want: `{"mounts":[{"name":"claim-c","mountPath":"/a"},{"name":"claim-claim-1","mountPath":"/b"},{"name":"claim-given","mountPath":"/c"}],"spec":{"volumes":[` +
				`{"name":"claim-c","persistentVolumeClaim":{"claimName":"c"}},{"name":"claim-claim-1","persistentVolumeClaim":{"claimName":"claim-1"}},{"name":"claim-given","persistentVolumeClaim":{"claimName":"given"}}]}}`},
		{name: "claim of no task", config: `{"pvcMount":[{"taskOutputParameter":{"producerTask":"gone","outputParameterKey":"name"},"mountPath":"/b"}]}`, err: `no task "gone"`},
		{name: "claim, nothing given", config: `{"pvcMount":[{"pvcNameParameter":` + absent + `,"mountPath":"/b"}]}`, err: "no claim was named"},
		{name: "ephemeral volume", config: `{"genericEphemeralVolume":[{"volumeName":"v","mountPath":"/v","accessModes":["ReadWriteOnce"],"size":"5Gi","defaultStorageClass":true,"metadata":{"labels":{"a":"b"}}}]}`,
			want: `{"mounts":[{"name":"v","mountPath":"/v"}],"spec":{"volumes":[{"name":"v","ephemeral":{"volumeClaimTemplate":{"metadata":{"labels":{"a":"b"}},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"5Gi"}}}}}}]}}`},
		{name: "shared memory", config: `{"enabledSharedMemory":{"volumeName":"shm","size":"1Gi"}}`,
			want: `{"mounts":[{"name":"shm","mountPath":"/dev/shm"}],"spec":{"volumes":[{"name":"shm","emptyDir":{"medium":"Memory","sizeLimit":"1Gi"}}]}}`},
		{name: "fields", config: `{"fieldPathAsEnv":[{"name":"UID","fieldPath":"metadata.uid"}]}`,
			want: `{"env":[{"name":"UID","valueFrom":{"fieldRef":{"fieldPath":"metadata.uid"}}}]}`},
		{name: "pull secrets", config: `{"imagePullSecret":[{"secretName":"old"},{"secretNameParameter":` + constant + `},{"secretNameParameter":` + absent + `}]}`,
			want: `{"spec":{"imagePullSecrets":[{"name":"old"},{"name":"fixed"}]}}`},
		{name: "security context", config: `{"securityContext":{"runAsUser":65534,"runAsGroup":0,"runAsNonRoot":true}}`,
			want: `{"security":{"runAsUser":65534,"runAsGroup":0,"runAsNonRoot":true}}`},
		{name: "node selector", config: `{"nodeSelector":{"labels":{"a":"b"}}}`, want: `{"spec":{"nodeSelector":{"a":"b"}}}`},
		{name: "node selector, by input", config: `{"nodeSelector":{"nodeSelectorJson":{"componentInputParameter":"selector"}}}`, want: `{"spec":{"nodeSelector":{"disk":"ssd"}}}`},
		{name: "node selector, nothing given", config: `{"nodeSelector":{"nodeSelectorJson":` + absent + `}}`, want: `{}`},
		{name: "node selector, of numbers", config: `{"nodeSelector":{"nodeSelectorJson":{"componentInputParameter":"number"}}}`, err: "nodeSelector: want a mapping"},
		{name: "tolerations", config: `{"tolerations":[{"key":"gpu","operator":"Exists","effect":"NoSchedule"},{"tolerationJson":{"componentInputParameter":"toleration"}},{"tolerationJson":{"componentInputParameter":"tolerations"}},{"tolerationJson":` + absent + `}]}`,
			want: `{"spec":{"tolerations":[{"key":"gpu","operator":"Exists","effect":"NoSchedule"},{"key":"one"},{"key":"a"},{"key":"b"}]}}`},
		{name: "node affinity", config: `{"nodeAffinity":[{"matchExpressions":[{"key":"disk","operator":"In","values":["ssd"]}]},{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}],"weight":5},{"nodeAffinityJson":{"componentInputParameter":"affinity"}},{"nodeAffinityJson":` + absent + `}]}`,
			want: `{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"disk","operator":"In","values":["ssd"]}]},{"matchExpressions":[{"key":"zone","operator":"Exists"}]}]},` +
				`"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":5,"preference":{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}}]}}}}`},
		{name: "node affinity, nothing given", config: `{"nodeAffinity":[{"nodeAffinityJson":` + absent + `}]}`, want: `{}`},
		{name: "pod affinity", config: `{"podAffinity":[{"matchPodLabels":{"a":"b"},"topologyKey":"zone"},{"matchPodExpressions":[{"key":"c","operator":"Exists"}],"weight":3,"anti":true}]}`,
			want: `{"spec":{"affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchLabels":{"a":"b"}},"topologyKey":"zone"}]},` +
				`"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":3,"podAffinityTerm":{"labelSelector":{"matchExpressions":[{"key":"c","operator":"Exists"}]}}}]}}}}`},
		{name: "init containers", config: `{"imagePullPolicy":"Never","emptyDirMounts":[{"volumeName":"v","mountPath":"/v"}],"secretAsVolume":[{"secretName":"s","mountPath":"/s"}],"initContainers":[` +
			`{"name":"first","image":"busybox","command":["sh"],"args":["-c","true"],"env":[{"name":"A","value":"1"}],"volumeMounts":[{"volumeName":"v","mountPath":"/w"},{"volumeName":"s","mountPath":"/t"}],"resources":{"limits":{"cpu":"1"}}},` +
			`{"name":"beside","image":"busybox","restartPolicy":"Always"}]}`,
			want: `{"policy":"Never","mounts":[{"name":"secret-s","mountPath":"/s","readOnly":true},{"name":"v","mountPath":"/v"}],"spec":{"initContainers":[` +
				`{"name":"first","image":"busybox","command":["sh"],"args":["-c","true"],"env":[{"name":"A","value":"1"}],"resources":{"limits":{"cpu":"1"}},"volumeMounts":[{"name":"v","mountPath":"/w"},{"name":"secret-s","mountPath":"/t"}],"imagePullPolicy":"Never"},` +
				`{"name":"beside","image":"busybox","imagePullPolicy":"Never","restartPolicy":"Always"}],` +
				`"volumes":[{"name":"secret-s","secret":{"secretName":"s"}},{"name":"v","emptyDir":{}}]}}`},
		{name: "init container, no such volume", config: `{"initContainers":[{"name":"a","image":"i","volumeMounts":[{"volumeName":"v","mountPath":"/w"}]}]}`, err: `the step has no volume "v"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := platformStep(t, tt.config)
			x := &execution{run: &skiff.Run{}}
			s.context = &expr.Context{Input: &kfp.ExecutorInput{}}
			pod := &core.Pod{ObjectMeta: core.ObjectMeta{Labels: map[string]string{}}, Spec: core.PodSpec{Containers: []core.Container{{Name: mainContainer}}}}
			err := x.applyPlatform(pod, s)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			main := pod.Spec.Containers[0]
			pod.Spec.Containers = nil
			got := map[string]any{"spec": pod.Spec, "env": main.Env, "mounts": main.VolumeMounts, "security": main.SecurityContext, "policy": main.ImagePullPolicy}
			want := map[string]any{}
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, pruned(t, got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// pruned is a value as JSON reads it, without what is empty at the top and
// without a pod's empty fields that are always written.
func pruned(t *testing.T, v map[string]any) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(asJSON(t, v)), &out); err != nil {
		t.Fatal(err)
	}
	if spec, ok := out["spec"].(map[string]any); ok {
		delete(spec, "containers")
		if inits, ok := spec["initContainers"].([]any); ok {
			for _, c := range inits {
				if resources, ok := c.(map[string]any)["resources"].(map[string]any); ok && len(resources) == 0 {
					delete(c.(map[string]any), "resources")
				}
			}
		}
		if len(spec) == 0 {
			delete(out, "spec")
		}
	}
	for name, value := range out {
		if value == nil || value == "" {
			delete(out, name)
		}
	}
	return out
}
