# A runner that costs next to nothing: the runner protocol in sh. A prompt with SLOW takes 10 steps of 50 ms, with SLOWEST 80.
say() { printf '{"type":"agent_event","event":%s}\n' "$1"; }
turn=0
while IFS= read -r line; do
  case $line in
    *'"type":"stop"'*) echo '{"type":"agent_stopped"}'; exit 0 ;;
    *'"type":"query"'*)
      turn=$((turn + 1)) step=0
      echo '{"type":"agent_started"}'
      say '{"type":"system","subtype":"init","session_id":"light","model":"light","cwd":"/","tools":[]}'
      case $line in *SLOWEST*) steps=80 ;; *SLOW*) steps=10 ;; *) steps=1 ;; esac
      while [ $step -lt $steps ]; do
        step=$((step + 1))
        say '{"type":"assistant","session_id":"light","message":{"id":"m","role":"assistant","content":[{"type":"text","text":"'$$-$turn-$step'"}]}}'
        [ $steps = 1 ] || sleep 0.05
      done
      say '{"type":"result","subtype":"success","is_error":false,"duration_ms":1,"num_turns":1,"result":"","total_cost_usd":0,"usage":{"input_tokens":1,"output_tokens":1},"session_id":"light"}'
      ;;
  esac
done
