# Supplement: odometry, the 5-frame error.
# Set DATA (KITTI odometry, as JPEG), OUT (folder of all runs) and SEED, then run any line in
# a shell. After a kill, the same line resumes. README.md lists the published errors.
#   export DATA=kitti_odom OUT=~/tmp SEED=1

python train.py --split odom --dataset kitti_odom --data_path "$DATA" --log_dir "$OUT" --model_name M_odom_$SEED --seed $SEED --resume auto && python evaluate_pose.py --sequences 9 10 --data_path "$DATA" --load_weights_folder "$OUT"/M_odom_$SEED/models/weights_19 --eval_out_dir "$OUT"/M_odom_$SEED
python train.py --use_stereo --split odom --dataset kitti_odom --data_path "$DATA" --log_dir "$OUT" --model_name MS_odom_$SEED --seed $SEED --resume auto && python evaluate_pose.py --sequences 9 10 --data_path "$DATA" --load_weights_folder "$OUT"/MS_odom_$SEED/models/weights_19 --eval_out_dir "$OUT"/MS_odom_$SEED
python train.py --weights_init scratch --split odom --dataset kitti_odom --data_path "$DATA" --log_dir "$OUT" --model_name M_odom_no_pt_$SEED --seed $SEED --resume auto && python evaluate_pose.py --sequences 9 10 --data_path "$DATA" --load_weights_folder "$OUT"/M_odom_no_pt_$SEED/models/weights_19 --eval_out_dir "$OUT"/M_odom_no_pt_$SEED
python train.py --use_stereo --weights_init scratch --split odom --dataset kitti_odom --data_path "$DATA" --log_dir "$OUT" --model_name MS_odom_no_pt_$SEED --seed $SEED --resume auto && python evaluate_pose.py --sequences 9 10 --data_path "$DATA" --load_weights_folder "$OUT"/MS_odom_no_pt_$SEED/models/weights_19 --eval_out_dir "$OUT"/MS_odom_no_pt_$SEED
