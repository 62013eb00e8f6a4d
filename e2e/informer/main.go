// informer lists and watches voicesessions as every Go controller does: client-go's dynamic informer, nothing of ours.
//
// It prints one JSON line whenever its cache changed: the names it holds, sorted, and how often it had to list.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"sync"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

var sessions = schema.GroupVersionResource{Group: "sessions.voicefleet.dev", Version: "v1alpha1", Resource: "voicesessions"}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: informer KUBECONFIG NAMESPACE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(kubeconfig, namespace string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, namespace, nil)
	informer := factory.ForResource(sessions).Informer()
	if err := informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		fmt.Fprintln(os.Stderr, "watch:", err)
	}); err != nil {
		return err
	}
	var turn sync.Mutex
	tell := func() {
		turn.Lock()
		defer turn.Unlock()
		names := []string{}
		for _, one := range informer.GetStore().List() {
			if object, ok := one.(metav1.Object); ok {
				names = append(names, object.GetName())
			}
		}
		sort.Strings(names)
		line, _ := json.Marshal(map[string]any{"sessions": names, "resourceVersion": informer.LastSyncResourceVersion()})
		fmt.Println(string(line))
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { tell() },
		UpdateFunc: func(any, any) { tell() },
		DeleteFunc: func(any) { tell() },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("the cache never synced")
	}
	tell()
	<-ctx.Done()
	return nil
}
